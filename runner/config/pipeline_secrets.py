"""A pipeline's secrets: read once when a run begins, redacted in everything shown or stored.

Secrets are found in texts in every form in which they are commonly written: as they are,
URL-encoded, base64 (alone or within more, as in HTTP's basic authentication), hexadecimal, escaped
for JSON or HTML, line by line; and cut off at an ellipsis, since errors are shortened before.
"""

from __future__ import annotations

import base64
import html
import json
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from paddock.engine.system.no_links import open_file
from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.engine.system.text import find_all, map_texts
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.keys import SecretKeys
from paddock.pipelines.model import Pipeline

Redact = Callable[[str], str]
ReadFromPrefect = Callable[[SecretKeys], str]
"""Returns what a Secret block or Variable has, or raises `UnusableSecret`."""

# A shorter value would be redacted in ordinary words.
SHORTEST_SECRET = 4
# What stands in a line of its own of a longer secret, such as a key in PEM.
_SHORTEST_LINE = 16
_ESCAPE = re.compile("%[0-9A-F]{2}")
_URL_SAFE = str.maketrans("+/", "-_")
# The marks of `shorten`, `last_part` and `without_middle`.
_CUT = re.compile(r"\n\[…\]\n|…")
MAX_SECRET_CHARS = 64 * 1024


def unredacted(text: str) -> str:
    return text


def redactor(secrets: Mapping[str, str]) -> Redact:
    """Return what puts `***` in place of every secret in a text.

    >>> redactor({"key": "s3cr3t/1"})("GET /?k=s3cr3t%2F1 with s3cr3t/1")
    'GET /?k=*** with ***'
    """
    forms = {form for value in secrets.values() for form in _spellings(value)}
    if not forms:
        return unredacted
    # The longest first: one secret may begin another.
    any_of = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))

    def redact(text: str) -> str:
        whole = any_of.sub("***", text)
        return _without_cut_ends(whole, forms) if "…" in whole else whole

    return redact


def _without_cut_ends(text: str, forms: Collection[str]) -> str:
    """Return a text without the beginnings of secrets before an ellipsis, and their ends after it.

    >>> [_without_cut_ends(text, ["s3cr3t/17"]) for text in ("key s3cr3… or…", "…3t/17")]
    ['key ***… or…', '…***']
    """
    pieces: list[str] = []
    done = 0
    for cut in _CUT.finditer(text):
        begun = _begun_before(text, cut.start(), forms)
        ended = _ended_after(text, cut.end(), forms)
        pieces.append(text[done : max(done, cut.start() - begun)])
        pieces += ["***" if begun else "", cut[0], "***" if ended else ""]
        done = cut.end() + ended
    return "".join([*pieces, text[done:]])


def _begun_before(text: str, end: int, forms: Iterable[str]) -> int:
    """Return how many letters before `end` are the beginning of a secret."""
    last = text[max(0, end - SHORTEST_SECRET) : end]
    begins = (form[: at + len(last)] for form in forms for at in find_all(last, form, 1))
    if len(last) < SHORTEST_SECRET:
        return 0
    return max((len(begin) for begin in begins if text.endswith(begin, 0, end)), default=0)


def _ended_after(text: str, start: int, forms: Iterable[str]) -> int:
    """Return how many letters from `start` on are the end of a secret."""
    first = text[start : start + SHORTEST_SECRET]
    ends = (form[at:] for form in forms for at in find_all(first, form, 1))
    if len(first) < SHORTEST_SECRET:
        return 0
    return max((len(end) for end in ends if text.startswith(end, start)), default=0)


def _spellings(value: str) -> Iterator[str]:
    lines = [line.strip() for line in value.splitlines()]
    for part in (value, value.strip(), *(line for line in lines if len(line) >= _SHORTEST_LINE)):
        if len(part) < SHORTEST_SECRET:
            continue
        yield part
        yield json.dumps(part)[1:-1]
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        yield repr(part)[1:-1]
        for quoted in (quote(part, safe=""), quote(part), quote_plus(part)):
            yield quoted
            yield _ESCAPE.sub(lambda found: found[0].lower(), quoted)
        yield html.escape(part)
        yield html.escape(part, quote=False)
        yield repr(part.encode())[2:-1]
        yield part.encode().hex()
        yield part.encode().hex().upper()
        yield base64.b64encode(part.encode()).decode()
        yield from _within_base64(part.encode())


def _within_base64(value: bytes) -> Iterator[str]:
    """Yield what stands in base64 for a value, whatever is before and behind it."""
    for n_before in range(3):
        whole = base64.b64encode(bytes(n_before) + value).decode()
        n_behind = (-len(value) - n_before) % 3
        # Letters that hold bits of a neighbour are left out.
        own = whole[n_before + bool(n_before) : len(whole) - n_behind - bool(n_behind)]
        if len(own) >= _SHORTEST_LINE // 2:
            yield own
            yield own.translate(_URL_SAFE)


class RedactedError(Exception):
    """An error that contained a secret, redacted."""


class Secrets(SelectiveFields, Struct, frozen=True):
    """The values by their names, and what takes them out of texts."""

    hidden = ("values", "redact", "within", "digest")

    values: Mapping[str, str] = field(default_factory=dict)
    redact: Redact = unredacted
    within: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    """Those of the pipelines that its steps run, by their files."""
    digest: Callable[[str], str] | None = None
    """`secret_digest` with a key; None: what is read now is compared with nothing."""

    def of(self, file: Path) -> Mapping[str, str]:
        return self.within.get(file, self.values)

    def redacted(self, value: Any) -> Any:
        """Return plain data with every text in it redacted, names of members too."""
        return value if self.redact is unredacted else map_texts(value, self.redact)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Redact errors that are raised within, and their causes.

        Raises:
            PipelineError: one with its faults redacted.
            RedactedError: any other, with its words redacted and without its causes.
        """
        try:
            yield
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            if self.redact(trace) == trace:
                raise
            if not isinstance(error, PipelineError):
                raise RedactedError(self.redact(str(error)) or type(error).__name__) from None
            redact = self.redact
            raise PipelineError(
                replace(fault, message=redact(fault.message), remedy=redact(fault.remedy))
                for fault in error.faults
            ) from None


class PlaceholderSecrets(dict[str, str]):
    """Stands in for the environment in a replay: no variable and no file is read."""

    def __missing__(self, name: str) -> str:
        return f"no-secret-in-a-replay-{name}"


def read_secrets(
    pipeline: Pipeline,
    environ: Mapping[str, str],
    inputs: Mapping[str, Any] | None = None,
    inner: Iterable[Pipeline] = (),
    *,
    unused: Collection[str] = (),
    prefect: ReadFromPrefect | None = None,
) -> Secrets:
    """Read every secret; `inputs` are the run's, of which those with `secret: true` are redacted.

    `inner` are the pipelines that its steps run; each reads its own secrets alone. Those of the
    pipeline that are `unused` are not read, nor those in Prefect without `prefect`.

    Raises:
        PipelineError: one is not there, or cannot be used, with its place in the file.
    """
    faults: list[Fault] = []
    values = _secret_values(pipeline, environ, faults, prefect, unused)
    within = {
        Path(pipeline.document.file): _secret_values(pipeline, environ, faults, prefect)
        for pipeline in inner
    }
    if faults:
        raise PipelineError(dict.fromkeys(faults))
    hidden = dict(values)
    for name, declared in pipeline.inputs.items():
        value = (inputs or {}).get(name)
        if not declared.is_secret or value == declared.default:
            continue  # what stands in the file is no secret
        if isinstance(value, str) and len(value) >= SHORTEST_SECRET:
            hidden[f"inputs.{name}"] = value
    for file, secrets in within.items():
        hidden |= {f"{file}:{name}": value for name, value in secrets.items()}
    return Secrets(values, redactor(hidden) if hidden else unredacted, within)


def trigger_secrets(pipeline: Pipeline) -> frozenset[str]:
    """Return the secrets that only `on` names: a run that a person starts does not need them."""
    data = pipeline.document.data
    steps = [value for key, value in data.items() if key not in ("on", "secrets")]
    return frozenset(
        name
        for name in pipeline.secrets
        if _is_named(name, data.get("on")) and not _is_named(name, steps)
    )


def _is_named(name: str, value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_is_named(name, part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_is_named(name, part) for part in value)
    pattern = rf"\bsecrets\s*(?!\.)|\bsecrets\s*\.\s*{re.escape(name)}\b"  # or all of them
    return re.search(pattern, str(value)) is not None


def _secret_values(
    pipeline: Pipeline,
    environ: Mapping[str, str],
    faults: list[Fault],
    prefect: ReadFromPrefect | None,
    unused: Collection[str] = (),
) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, keys in pipeline.secrets.items():
        if name in unused or (keys.prefect and prefect is None):
            continue
        try:
            is_there = keys.prefect and not isinstance(environ, PlaceholderSecrets)
            read = prefect(keys) if prefect and is_there else _read_secret(keys, pipeline, environ)
            values[name] = _usable_secret(read)
        except UnusableSecret as error:
            mark = pipeline.mark(("secrets", name))
            faults.append(Fault(f"secret '{name}': {error}.", error.remedy, mark))
    return values


def secret_place(keys: SecretKeys) -> str:
    if keys.prefect:
        kind, _, name = keys.prefect.partition("/")
        return f"Prefect's {'Secret block' if kind == 'secret' else 'Variable'} '{name}'"
    return f"the environment variable {keys.env}" if keys.env else f"the file {keys.file}"


class UnusableSecret(Exception):
    def __init__(self, why: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(why)


def _read_secret(keys: SecretKeys, pipeline: Pipeline, environ: Mapping[str, str]) -> str:
    if isinstance(environ, PlaceholderSecrets):
        return environ[keys.env or keys.prefect or str(keys.file)]
    if keys.env is not None:
        if keys.env not in environ:
            remedy = "Set it where the run is started; the value never belongs into the file."
            raise UnusableSecret(f"the environment variable {keys.env} is not set", remedy)
        return environ[keys.env]
    folder = Path(pipeline.document.file).absolute().parent
    path = folder / Path(keys.file or "").expanduser()
    try:
        with open_file(path, follows_links=True) as file:
            content = file.read(MAX_SECRET_CHARS * 4)
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UnusableSecret(
            f"{path} holds no text", "Write the value into it, in UTF-8."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UnusableSecret(
            f"{path} cannot be read: {why}", "Make it readable to who runs."
        ) from None


def _usable_secret(value: str) -> str:
    if not value.strip():
        raise UnusableSecret("it is empty", "Give it its value.")
    if len(value) < SHORTEST_SECRET:
        why = f"it has fewer than {SHORTEST_SECRET} characters, and could not be kept out of texts"
        raise UnusableSecret(why, "Use a longer one.")
    if len(value) > MAX_SECRET_CHARS:
        why = f"it has more than {MAX_SECRET_CHARS:,} characters"
        raise UnusableSecret(why, "Name the file that holds the key alone.")
    return value
