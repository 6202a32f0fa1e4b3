"""A pipeline's secrets: read once when a run begins, kept in memory, redacted wherever they go."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.shape import SecretKeys
from paddock.pipelines.tree import Pipeline

from .redaction import SHORTEST, nothing_to_hide, redacted, redactor

MOST_CHARACTERS = 64 * 1024


class Withheld(Exception):
    """An error that held a secret, in words that do not."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values by their names, and what takes them out of texts."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    redact: Callable[[str], str] = field(default_factory=nothing_to_hide, repr=False)
    within: Mapping[Path, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Those of the pipelines that its steps run, by their files."""

    def of(self, file: Path) -> Mapping[str, str]:
        """Give those that the pipeline in this file may read."""
        return self.within.get(file, self.values)

    def redacted(self, value: Any) -> Any:
        """Give plain data without a secret in any of its texts."""
        return redacted(value, self.redact)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Let no error out whose words, or those of its causes, hold a secret.

        Raises:
            PipelineError: one with its faults redacted.
            Withheld: any other, with its words redacted and without its causes.
        """
        try:
            yield
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            if self.redact(trace) == trace:
                raise
            raise self._without(error) from None

    def _without(self, error: Exception) -> Exception:
        if isinstance(error, PipelineError):
            redact = self.redact
            return PipelineError(
                replace(fault, message=redact(fault.message), remedy=redact(fault.remedy))
                for fault in error.faults
            )
        return Withheld(self.redact(str(error)) or type(error).__name__)


class StandIns(dict[str, str]):
    """What is read where a run only repeats what was recorded: no variable and no file is."""

    def __missing__(self, name: str) -> str:
        """Give what stands in for a secret."""
        return f"no-secret-in-a-replay-{name}"


def resolve(
    pipeline: Pipeline,
    environ: Mapping[str, str],
    inputs: Mapping[str, Any] | None = None,
    inner: Iterable[Pipeline] = (),
) -> Secrets:
    """Read every secret; `inputs` are the run's, of which those with `secret: true` are redacted.

    `inner` are the pipelines that its steps run; each reads its own secrets alone.

    Raises:
        PipelineError: one is not there, or cannot be used, with its place in the file.
    """
    faults: list[Fault] = []
    values = _values(pipeline, environ, faults)
    within = {Path(one.document.file): _values(one, environ, faults) for one in inner}
    if faults:
        raise PipelineError(dict.fromkeys(faults))
    hidden = values | dict(_secret_inputs(pipeline, inputs or {}))
    for file, more in within.items():
        hidden |= {f"{file}:{name}": value for name, value in more.items()}
    return Secrets(values, redactor(hidden), within)


def _values(pipeline: Pipeline, environ: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, keys in pipeline.secrets.items():
        try:
            values[name] = _usable(_read(keys, pipeline, environ))
        except _Unusable as error:
            mark = pipeline.mark(("secrets", name))
            faults.append(Fault(f"secret '{name}': {error}.", error.remedy, mark))
    return values


def place_of(keys: SecretKeys) -> str:
    """Say where a secret is read from, for whoever must allow it."""
    return f"the environment variable {keys.env}" if keys.env else f"the file {keys.file}"


class _Unusable(Exception):
    def __init__(self, why: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(why)


def _read(keys: SecretKeys, pipeline: Pipeline, environ: Mapping[str, str]) -> str:
    if isinstance(environ, StandIns):
        return environ[keys.env or str(keys.file)]
    if keys.env is not None:
        if keys.env not in environ:
            remedy = "Set it where the run is started; the value never belongs into the file."
            raise _Unusable(f"the environment variable {keys.env} is not set", remedy)
        return environ[keys.env]
    folder = Path(pipeline.document.file).absolute().parent
    path = folder / Path(keys.file or "").expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(MOST_CHARACTERS * 4)
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _Unusable(f"{path} holds no text", "Write the value into it, in UTF-8.") from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _Unusable(f"{path} cannot be read: {why}", "Make it readable to who runs.") from None


def _usable(value: str) -> str:
    if not value.strip():
        raise _Unusable("it is empty", "Give it its value.")
    if len(value) < SHORTEST:
        why = f"it has fewer than {SHORTEST} characters, and could not be kept out of texts"
        raise _Unusable(why, "Use a longer one.")
    if len(value) > MOST_CHARACTERS:
        why = f"it has more than {MOST_CHARACTERS:,} characters"
        raise _Unusable(why, "Name the file that holds the key alone.")
    return value


def _secret_inputs(pipeline: Pipeline, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, declared in pipeline.inputs.items():
        value = inputs.get(name)
        if not declared.is_secret or value == declared.default:
            continue  # what stands in the file is no secret
        if isinstance(value, str) and len(value) >= SHORTEST:
            yield f"inputs.{name}", value
