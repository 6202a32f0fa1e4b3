"""Arguments that several commands share: pipeline files, inputs, output files.

FILE names a pipeline, a folder with one, or the current folder. Most commands import this module,
so it may import nothing slow at module level.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.engine.system import no_links
from paddock.engine.system.item_samples import SEED, ItemSample
from paddock.engine.system.text import is_utf8, listed, shell_command

from .exit_status import TYPER, CommandError
from .pipeline_or_model import named_file

if TYPE_CHECKING:
    from paddock.runner.ledger.run_history import PastRun

PrefixArgument = Annotated[
    str, typer.Argument(metavar="PREFIX", help="Only models whose names begin with it.")
]
PipelineArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE", help="A pipeline, or a folder with one; this folder by default."
    ),
]
PermissionsOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME,...", help="Permissions of pipelines.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
InputsOption = Annotated[
    list[str] | None,
    typer.Option("-i", "--input", metavar="NAME=VALUE", help="Set an input; can be repeated."),
]
PoolOption = Annotated[
    str | None,
    typer.Option(metavar="URL,...", help="Use these servers instead of this machine's pool."),
]
HERE = "."
"""Default of FILE."""


def option(
    help_: str = "", *names: str, default: Any = None, kind: Any = typer.Option, **facts: Any
) -> Any:
    """Return a field of a command's flags, with what Typer is to know of it.

    Also the default of a command's parameter: then who calls it from Python names the value.
    """
    return field(default=default, metadata={TYPER: kind(*names, help=help_, **facts)})


argument, flag = partial(option, kind=typer.Argument), partial(option, default=False)

# Options of several commands: each call makes the field of one.
api_keys_option = partial(option, "File with one key per line.", "--api-keys", metavar="FILE")
exact_flag = partial(flag, "Compute models in their own form, not tuned copies.", "--exact")
junit_option = partial(option, "Write JUnit XML for CI.", metavar="FILE")
keep_alive_option = partial(
    option, "How long the model stays.", "--keepalive", "--keep-alive", metavar="TIME"
)
local_flag = partial(flag, "Run inside this process, without Prefect.", "--local")
max_runs_option = partial(option, "Concurrent runs.", "--max-runs", min=1)
report_option = partial(option, "Write a report as one HTML page.", metavar="FILE")
summary_option = partial(option, "Write a summary in Markdown.", metavar="FILE")
take_flag = partial(
    flag, "Replace outputs that were edited, or that other pipelines wrote.", "--take"
)
yes_flag = partial(flag, "Do not ask whether missing documents were deleted.", "--yes")

STANDARD_NAME = "pipeline.yaml"
_MAX_BYTES = 1024 * 1024  # the largest file that `pipelines.yaml_source` reads
_HAS_STEPS = re.compile(r"^(?:steps|'steps'|\"steps\")[ \t]*:", re.MULTILINE)
_N_NAMED = 5  # in a message


def pipeline_file(text: str, command: str) -> Path:
    """Return the pipeline of a FILE argument: a file, or the pipeline of a folder.

    In a folder it is `pipeline.yaml`, else the only YAML file with `steps`. The suffix `.yaml` may
    be left out. `command` is used in the hint of an error.

    Raises:
        CommandError: no pipeline, or several; the message names what was found.
    """
    if not text:
        raise CommandError(
            "The name of the pipeline is empty.", "Name a file, or a folder with one."
        )
    path = Path(text)
    if not is_utf8(str(path.absolute())):
        raise CommandError(
            f"'{path.absolute()}' has a name that is not UTF-8.",
            "Rename it, or set a locale that has its letters, such as LC_ALL=C.UTF-8.",
        )
    if path.is_dir():
        return _in_folder(path, command)
    if (found := named_file(text)) is not None:
        from paddock.pipelines.prompt_file import GITHUB_SUFFIXES, github_prompt_remedy

        if found.name.lower().endswith(GITHUB_SUFFIXES):
            what = f"'{text}' is a prompt in the form of GitHub Models, and no pipeline."
            raise CommandError(what, github_prompt_remedy(found.name))
        return found
    if path.is_symlink():
        raise CommandError(
            f"'{text}' is a link to a file that does not exist.", "Correct the link."
        )
    near: list[str] = []
    with contextlib.suppress(OSError):
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()])
    similar = f"Did you mean '{path.parent / near[0]}'?" if near else ""
    raise CommandError(f"There is no file '{text}'.", similar)


def _in_folder(folder: Path, command: str) -> Path:
    if (folder / STANDARD_NAME).is_file():
        return folder / STANDARD_NAME
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise CommandError(f"The folder '{folder}' cannot be listed: {error.strerror}.") from None
    endings = (".yaml", ".yml")
    files = [
        entry
        for entry in entries
        if entry.suffix.lower() in endings
        and not entry.name.startswith(".")
        and is_utf8(entry.name)
        and entry.is_file()
    ]
    found = [file for file in files if has_steps(file)]
    if len(found) == 1:
        return found[0]
    name = "The current folder" if folder == Path() else f"The folder '{folder}'"
    if found:
        raise CommandError(
            f"{name} has {len(found)} pipelines and no {STANDARD_NAME}: {_file_list(found)}.",
            f"Name one of them: `paddock {command} {shlex.quote(str(found[0]))}`.",
        )
    if inner := sorted(file.parent for file in folder.glob(f"*/{STANDARD_NAME}")):
        raise CommandError(
            f"{name} has no pipeline; of the folders in it these have one: {_file_list(inner)}.",
            f"Name one of them: `paddock {command} {shlex.quote(str(inner[0]))}`.",
        )
    others = f" It has {_file_list(files)}, without `steps`." if files else ""
    raise CommandError(
        f"{name} has no pipeline.{others}",
        f"Name one: `paddock {command} FILE`. `paddock init minimal DIR` makes one.",
    )


def existing_folder(text: str, command: str) -> Path:
    path = Path(text)
    if path.is_dir():
        return path
    if path.exists():
        raise CommandError(f"'{text}' is a file; `paddock {command}` takes folders.\n"
                           f"  {shell_command('paddock', command, path.parent)}")  # fmt: skip
    raise CommandError(f"There is no folder '{text}'.")


def has_steps(file: Path) -> bool:
    """Return whether a YAML file has a top-level `steps`, even if its YAML is broken."""
    try:
        with no_links.open_named(file) as stream:
            text = stream.read(_MAX_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return _HAS_STEPS.search(text) is not None


def _file_list(files: Sequence[Path]) -> str:
    return listed([f"'{file.name}'" for file in files], _N_NAMED)


def require_writable(
    target: Path, example: str, *, reads: Iterable[str | Path] | None = None
) -> Path:
    """Return the target of an output option; with `reads`, the command's inputs, of a report.

    Raises:
        CommandError: it is a folder, a reserved or YAML file, or its folder is not writable. Of a
            report: it is an input, or exists and is no report of ours.
    """
    from paddock.runner.render.report_files import output_refusal, report_refusal

    refusal = output_refusal(target, example)
    if refusal is None and reads is not None:
        refusal = report_refusal(target, example, reads)
    if refusal is not None:
        raise CommandError(refusal)
    return target


def require_reports(targets: Mapping[str, Path | None], reads: Iterable[str | Path] = ()) -> None:
    """Check the targets of reports, each with an example of a name, as `require_writable`."""
    inputs = list(reads)
    for example, target in targets.items():
        if target is not None:
            require_writable(target, example, reads=inputs)


def remove_old_reports(*targets: Path | None) -> None:
    """Remove reports of earlier runs: one that ends before it writes its own leaves none."""
    for target in targets:
        if target is not None and target.is_file():
            target.unlink()


@dataclass(frozen=True)
class PipelineFlags:
    """Options of the commands that run a pipeline, its tests or its variants, or plan it."""

    sample: int | None = option(
        "Only N random items of each top-level block, or rows of a test's data set.",
        metavar="N",
        min=1,
    )
    limit: int | None = option("Only the first N of them.", metavar="N", min=1)
    seed: int | None = option("With --sample: another seed takes other items.", metavar="S")
    stratify: str | None = option(
        "With --sample: as many of each kind as there are of all, by `item.suffix`, say.",
        metavar="EXPR",
    )
    as_json: JsonOption = False
    pool: PoolOption = None
    allow: list[str] | None = option(
        "Permissions: run, tool, mcp, network, secrets.", metavar="NAME,..."
    )

    def given_settings(self, **extra: object) -> dict[str, object]:
        """Return the settings that were given, with some of the command's own."""
        return given_settings(pool=self.pool, allow=self.allow, **extra)

    def item_sample(self) -> ItemSample | None:
        if self.sample is not None and self.limit is not None:
            raise CommandError(
                "`--sample` and `--limit` are both given.\n"
                "  `--sample` takes random items, `--limit` the first ones: leave one out."
            )
        for name, value in (("--seed", self.seed), ("--stratify", self.stratify)):
            if value is not None and self.sample is None:
                raise CommandError(f"`{name}` belongs to `--sample`.\n  Add `--sample N`.")
        if self.limit is not None:
            return ItemSample(self.limit, is_first=True)
        if self.sample is None:
            return None
        return ItemSample(
            self.sample, SEED if self.seed is None else self.seed, self.stratify or ""
        )


@dataclass(frozen=True)
class VariedFlags(PipelineFlags):
    """Options of the commands that run variants of a pipeline."""

    models: list[str] | None = option(
        "Models for a name under `models`.", "--model", metavar="NAME=MODEL,..."
    )
    prompts: list[str] | None = option(
        "Prompt files for a step.", "--prompt", metavar="STEP=FILE,..."
    )
    settings: list[str] | None = option(
        "Values for a key of a step, such as bill.params.temperature=0,0.7.",
        "--set",
        metavar="STEP.KEY=VALUE,...",
    )


def parse_inputs(given: list[str] | None) -> dict[str, str]:
    inputs: dict[str, str] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"'-i {pair}' is not an input.\n  Write it as `-i name=value`.")
        if not is_utf8(value):
            raise CommandError(f"Input '{name}' is not UTF-8.\n  Give it in that encoding.")
        if name in inputs:
            raise CommandError(f"Input '{name}' is given twice.\n  Leave one of them out.")
        inputs[name] = value
    return inputs


def option_values(given: Sequence[str] | None) -> list[str]:
    """Return the values of `name=value,value` options, whole and apart, before these are read."""
    values = [pair.partition("=")[2] for pair in given or ()]
    return [*values, *(part for value in values for part in value.split(","))]


def given_settings(**options: object) -> dict[str, object]:
    """Return the settings of the options that were given; a flag that was not is False.

    An option that was given several times is as one with commas.
    """
    return {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value is not False and value != []
    }


def existing_paths(texts: Sequence[str] | None) -> list[Path]:
    for text in texts or ():
        if not Path(text).exists():
            raise CommandError(f"There is no file or folder '{text}'.")
    return [Path(text) for text in texts or ()]


def recorded_inputs(
    past: PastRun, file: Path | None, by_hand: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    """Return a run's pipeline, or `file`, and its inputs; inputs of `by_hand` win.

    Raises:
        CommandError: its inputs were not recorded, or it is no run of a whole pipeline.
    """
    name, path = past.row.run, file or past.file
    if past.row.is_of_variant:
        raise CommandError(
            f"Run '{name}' is a part of a comparison.\n"
            f"  The same command goes on: `paddock compare {shlex.quote(str(past.file))} …`."
        )
    if past.row.given is None:
        raise CommandError(
            f"The inputs of run '{name}' were not recorded.\n"
            f"  Give them: `paddock run {shlex.quote(str(path))} -i …`; "
            f"finished items stay finished."
        )
    given = json.loads(past.row.given)
    missing = [name for name in given["hidden"] if name not in by_hand]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        options = " ".join(f"-i {shlex.quote(name)}=…" for name in missing)
        again = shell_command("paddock", "run", "--resume", name)
        raise CommandError(
            f"Run '{name}' had the input {names}, which was not recorded: it is secret, or "
            f"rows that a program gave.\n"
            f"  Give it again: `{again} {options}`."
        )
    return path, {**given["inputs"], **by_hand}
