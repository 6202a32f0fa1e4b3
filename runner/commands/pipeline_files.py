"""Which pipeline file a command's FILE names: a file, a folder with one, or the current folder."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from .exits import CommandError

HERE = "."
"""What FILE is where a command is given none."""

STANDARD_NAME = "pipeline.yaml"
_MAX_BYTES = 1024 * 1024  # the largest file that `pipelines.source` reads
_HAS_STEPS = re.compile(r"^(?:steps|'steps'|\"steps\")[ \t]*:", re.MULTILINE)
_N_NAMED = 5  # files named in a message


def pipeline_file(text: str, command: str, *, with_prompts: bool = False) -> Path:
    """Return the pipeline that is meant: a file, or the one of a folder.

    In a folder it is `pipeline.yaml`, else the only YAML file with `steps`. The ending `.yaml` may
    be left out. `command` is named in what a person may type instead. `with_prompts`: the only
    `.prompt.yml` of a folder without a pipeline counts too.

    Raises:
        CommandError: there is none, or there are several, with what was found.
    """
    if not text:
        raise CommandError(
            "The name of the pipeline is empty.\n  Name a file, or a folder with one."
        )
    path = Path(text)
    if not is_text(str(path.absolute())):
        raise CommandError(
            f"'{path.absolute()}' has a name that is not UTF-8.\n"
            "  Rename it, or set a locale that has its letters, such as LC_ALL=C.UTF-8."
        )
    if path.is_dir():
        return _in_folder(path, command, with_prompts=with_prompts)
    if (found := named_file(text)) is not None:
        return found
    if path.is_symlink():
        raise CommandError(f"'{text}' is a link to what is not there.\n  Mend the link.")
    raise CommandError(f"There is no file '{text}'.{_near(path)}")


def named_file(text: str) -> Path | None:
    """Return the file or folder of this name, with the ending `.yaml` or `.yml` where it lacks."""
    path = Path(text)
    names = (path, path.with_name(f"{path.name}.yaml"), path.with_name(f"{path.name}.yml"))
    return next((name for name in names[: 3 if path.name else 1] if name.exists()), None)


def is_text(text: str) -> bool:
    """Return whether a name is UTF-8; bytes that are not were decoded as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _in_folder(folder: Path, command: str, *, with_prompts: bool) -> Path:
    """Return the pipeline of a folder.

    Raises:
        CommandError: it has none, or several and none of the standard name.
    """
    if (folder / STANDARD_NAME).is_file():
        return folder / STANDARD_NAME
    files = _yaml_files(folder)
    found = [file for file in files if _has_steps(file)]
    what = "pipelines"
    if not found and with_prompts:
        from paddock.pipelines.prompt_file import is_prompt_file

        found = [file for file in files if is_prompt_file(file.name)]
        what = "files of prompts"
    if len(found) == 1:
        return found[0]
    name = "The current folder" if folder == Path() else f"The folder '{folder}'"
    if found:
        raise CommandError(
            f"{name} has {len(found)} {what} and no {STANDARD_NAME}: {_listed(found)}.\n"
            f"  Name the one that is meant: `paddock {command} {shlex.quote(str(found[0]))}`."
        )
    others = f" It has {_listed(files)}, without `steps`." if files else ""
    raise CommandError(
        f"{name} has no pipeline.{others}\n"
        f"  Name one: `paddock {command} FILE`. `paddock init minimal DIR` makes one."
    )


def _yaml_files(folder: Path) -> list[Path]:
    """Return a folder's YAML files by name; hidden ones are left out.

    Raises:
        CommandError: the folder cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise CommandError(f"The folder '{folder}' cannot be listed: {error.strerror}.") from None
    endings = (".yaml", ".yml")
    return [
        entry
        for entry in entries
        if entry.suffix.lower() in endings
        and not entry.name.startswith(".")
        and is_text(entry.name)
        and entry.is_file()
    ]


def _has_steps(file: Path) -> bool:
    """Return whether a YAML file has `steps` at its top level, also where its YAML is broken."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return _HAS_STEPS.search(text) is not None


def _listed(files: Sequence[Path]) -> str:
    names = ", ".join(f"'{file.name}'" for file in files[:_N_NAMED])
    more = len(files) - _N_NAMED
    return f"{names} and {more} more" if more > 0 else names


def looks_like_a_model(text: str) -> bool:
    """Return whether this is `name:tag`, `owner/name` or a bare name rather than a file's."""
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)*(:[\w.-]+)?", text) is not None
    return is_name and not text.startswith((".", "-")) and (":" in text or not Path(text).suffix)


def _near(path: Path) -> str:
    """Name the file that may be meant, if its folder has one."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"\n  Did you mean '{path.parent / near[0]}'?" if near else ""
