"""Values of command-line arguments.

Pipeline files, model references, documents, stdin, output files, `ollama run`. A FILE argument
names a pipeline, a folder with one, or the current folder. Everything here is imported before the
command is known, so nothing slow may be imported at module level.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.runner.progress import console

from .exit_status import CommandError

if TYPE_CHECKING:
    from paddock.runner.settings import Settings

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
    if not is_utf8(str(path.absolute())):
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
    raise CommandError(f"There is no file '{text}'.{_similar_file(path)}")


def named_file(text: str) -> Path | None:
    """Return the file or folder of this name, with the ending `.yaml` or `.yml` where it lacks."""
    path = Path(text)
    names = (path, path.with_name(f"{path.name}.yaml"), path.with_name(f"{path.name}.yml"))
    return next((name for name in names[: 3 if path.name else 1] if name.exists()), None)


def is_utf8(text: str) -> bool:
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
            f"{name} has {len(found)} {what} and no {STANDARD_NAME}: {_file_list(found)}.\n"
            f"  Name the one that is meant: `paddock {command} {shlex.quote(str(found[0]))}`."
        )
    others = f" It has {_file_list(files)}, without `steps`." if files else ""
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
        and is_utf8(entry.name)
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


def _file_list(files: Sequence[Path]) -> str:
    names = ", ".join(f"'{file.name}'" for file in files[:_N_NAMED])
    more = len(files) - _N_NAMED
    return f"{names} and {more} more" if more > 0 else names


def looks_like_model(text: str) -> bool:
    """Return whether this is `name:tag`, `owner/name` or a bare name rather than a file's."""
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)*(:[\w.-]+)?", text) is not None
    return is_name and not text.startswith((".", "-")) and (":" in text or not Path(text).suffix)


def _similar_file(path: Path) -> str:
    """Name the file that may be meant, if its folder has one."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"\n  Did you mean '{path.parent / near[0]}'?" if near else ""


MODEL_HELP = "A name, as `paddock list` shows it, or a GGUF file."


def resolve_model_ref(text: str) -> str:
    """Return the name of a model, or the whole path of a GGUF file.

    A file of a hub is meant by the name under which `paddock pull` keeps it.

    Raises:
        CommandError: a path is given that leads to no GGUF file, with what is near.
    """
    from paddock.engine.errors import ModelBroken, NoModelFile
    from paddock.engine.gguf import check_file
    from paddock.engine.models.model_names import is_path

    ref = absolute_model_ref(text)
    if is_path(text) and not text.startswith("hf:"):
        try:
            check_file(Path(ref), text)
        except NoModelFile:
            raise CommandError(f"no such file: '{text}'.{_nearby_gguf_files(Path(ref))}") from None
        except ModelBroken as error:
            raise CommandError(f"'{text}': {error.why}.") from None
    return ref


def absolute_model_ref(text: str) -> str:
    """Return the same without looking whether the file is there."""
    from paddock.engine.models.model_names import is_path

    if text.startswith("hf:"):
        from paddock.engine.models.model_names import parse_source

        return str(parse_source(text).name)
    return str(Path(text).expanduser().resolve()) if is_path(text) else text


def _nearby_gguf_files(path: Path) -> str:
    """Name the GGUF files of the folder, if it has some."""
    from paddock.pipelines.errors import did_you_mean

    names = sorted(file.name for file in path.parent.glob("*.gguf"))
    return f"\n  {did_you_mean(path.name, names)}" if names else ""


MAX_INPUT_BYTES = 64 * 1024 * 1024


def read_document_text(file: str) -> str:
    """Read a document's text, whatever its kind and its encoding.

    Raises:
        CommandError: there is none of this name.
        StepError: it cannot be read, or has no text.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise CommandError(f"There is no file '{file}'.")
    from paddock.steps.readers.documents import read_document_file

    return read_document_file(path, max_bytes=MAX_INPUT_BYTES).text


def read_stdin() -> str:
    """Read standard input to its end.

    Raises:
        CommandError: it is not text, or far too much.
    """
    from paddock.steps.readers.text_encoding import NotText, decode_text

    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        return ""
    raw = stream.read(MAX_INPUT_BYTES + 1)
    if len(raw) > MAX_INPUT_BYTES:
        raise CommandError(f"The input has more than {MAX_INPUT_BYTES // 1024**2} MiB.")
    try:
        return decode_text(raw).text
    except NotText as error:
        raise CommandError(f"The input is no text: {error}.") from None


def parse_keep_alive(value: str) -> float:
    """Return seconds of a duration as people write it; below zero: for ever.

    Raises:
        CommandError: it is none.
    """
    from paddock.runner.config import setting_values

    try:
        return setting_values.keep_alive(value)
    except setting_values.BadValue as error:
        raise CommandError(f"--keepalive: '{value}' {error.problem}.\n  {error.remedy}") from None


def require_writable(target: Path, example: str) -> Path:
    """Return the file that is meant.

    Raises:
        CommandError: it is a folder, Paddock's own or a YAML file, or lies where none can be or
            nothing can be written.
    """
    from paddock.runner.bind.protected_files import reserved_path_refusal
    from paddock.steps.paths import write_refusal

    if target.is_dir():
        raise CommandError(f"'{target}' is a folder.\n  Name a file, such as {target / example}.")
    if (refusal := reserved_path_refusal(target)) is not None:
        raise CommandError(f"'{target}' {refusal.why}.\n  Name another file, such as '{example}'.")
    if not os.access(target, os.W_OK) and (why := write_refusal(target.parent)) is not None:
        raise CommandError(f"'{target}' cannot be written: {why}.\n  Name another place.")
    return target


OLLAMA_PROGRAM = "ollama"

# The options of `ollama run` that take a value, and those that take none (cmd/cmd.go there).
# Any other option before the first argument is one of ours: then a pipeline is meant.
_OLLAMA_OPTIONS_WITH_VALUE = frozenset({"--format", "--keepalive"})
_OLLAMA_FLAGS = frozenset({"--verbose", "--insecure", "--nowordwrap", "--think", "--hidethinking"})
_IGNORED_OLLAMA_FLAGS = frozenset({"--nowordwrap"})


def is_called_as_ollama(program: str) -> bool:
    """Return whether the program was called by a link named `ollama`.

    >>> is_called_as_ollama("/usr/local/bin/ollama"), is_called_as_ollama("ollama.exe"), is_called_as_ollama("bin/paddock")
    (True, True, False)
    """
    return Path(program).stem.lower() == OLLAMA_PROGRAM


def translate_ollama_run(program: str, given: list[str]) -> list[str]:
    """Return the arguments with `run MODEL [PROMPT...]` as a chat; all others unchanged.

    A pipeline of that name in the current folder wins. `--pull` brings a model that is missing,
    as `ollama run` does; under our own name that takes `paddock pull`.
    """
    if given[:1] != ["run"] or not _names_model(given[1:]):
        return given
    pulls = "--pull" if is_called_as_ollama(program) else "--no-pull"
    return ["chat", pulls, *(word for word in given[1:] if word not in _IGNORED_OLLAMA_FLAGS)]


def warn_of_model_with_same_name(text: str, path: Path, settings: Settings) -> None:
    """Tell on stderr that a pipeline was taken where a model has the same name."""
    if not looks_like_model(text):
        return
    from paddock.engine.models.model_finder import ModelFinder
    from paddock.engine.models.model_names import parse_name

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    if parse_name(text).key in {parse_name(name).key for name in finder.names()}:
        console.print_err(
            f"'{text}' is a pipeline here ({path}) and also a model. The pipeline runs; "
            f"`paddock chat {text}` talks to the model."
        )


def _names_model(given: list[str]) -> bool:
    """Return whether the first argument is a model's name and not that of a pipeline."""
    words = iter(given)
    for word in words:
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            return looks_like_model(word) and named_file(word) is None
        if name in _OLLAMA_OPTIONS_WITH_VALUE:
            if not equals:
                next(words, None)
        elif name not in _OLLAMA_FLAGS:
            return False
    return False
