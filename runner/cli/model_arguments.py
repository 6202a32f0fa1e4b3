"""Arguments of commands that use a model: its name, documents, standard input, `--keepalive`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.engine.errors import ModelBroken, NoModelFile
from paddock.engine.model_file_parts import check_file
from paddock.engine.models.model_names import is_path
from paddock.engine.models.pull_sources import parse_source
from paddock.pipelines.errors import did_you_mean
from paddock.runner.config import setting_values
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings
from paddock.steps.readers.text_encoding import NotText, decode_text

from .exit_status import CommandError


def complete_model_names(incomplete: str) -> list[str]:
    """Return the names of local models with this prefix; none if they cannot be read."""
    from paddock.engine.models.model_finder import ModelFinder

    try:
        pool = read_settings(Path.cwd()).pool
        names = ModelFinder(pool.models_dir, pool.cache_dir).names()
    except Exception:  # an error must not disturb the prompt; the command itself reports it
        return []
    return [name for name in names if name.startswith(incomplete)]


def model_argument(help_: str, metavar: str = "MODEL") -> Any:
    return typer.Argument(metavar=metavar, help=help_, autocompletion=complete_model_names)


ModelArgument = Annotated[str, model_argument("A name from `paddock list`, or a GGUF file.")]
MAX_INPUT_BYTES = 64 * 1024 * 1024


def resolve_model_ref(text: str) -> str:
    """Return a model's name, or the absolute path of a GGUF file.

    A file of Hugging Face (`hf:`) becomes the name under which `paddock pull` stores it.
    """
    ref = absolute_model_ref(text)
    if is_path(text) and not text.startswith("hf:"):
        try:
            check_file(Path(ref), text)
        except NoModelFile:
            names = sorted(file.name for file in Path(ref).parent.glob("*.gguf"))
            nearby = f"\n  {did_you_mean(Path(ref).name, names)}" if names else ""
            raise CommandError(f"no such file: '{text}'.{nearby}") from None
        except ModelBroken as error:
            raise CommandError(f"'{text}': {error.why}.") from None
    return ref


def absolute_model_ref(text: str) -> str:
    if text.startswith("hf:"):
        return str(parse_source(text).name)
    return str(Path(text).expanduser().resolve()) if is_path(text) else text


def read_document_text(file: str) -> str:
    """Return a document's text, whatever its format and encoding; print its notes."""
    path = Path(file).expanduser()
    if not path.exists():
        raise CommandError(f"There is no file '{file}'.")
    from paddock.steps.readers.documents import read_document_file  # imports asyncio

    document = read_document_file(path, max_bytes=MAX_INPUT_BYTES)
    for note in document.notes:
        printing.print_err(note)
    return document.text


def read_stdin() -> str:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        return ""
    raw = stream.read(MAX_INPUT_BYTES + 1)
    if len(raw) > MAX_INPUT_BYTES:
        raise CommandError(f"The input has more than {MAX_INPUT_BYTES // 1024**2} MiB.")
    return decoded_input(raw, "The input")


def decoded_input(raw: bytes, what: str) -> str:
    """Return a text in the encoding that its mark says, such as a shell's UTF-16."""
    try:
        return decode_text(raw).text
    except NotText as error:
        raise CommandError(f"{what} is not text: {error}.") from None


def parse_keep_alive(value: str) -> float:
    """Return the seconds of a duration; below zero means for ever."""
    try:
        return setting_values.parse_keep_alive(value)
    except setting_values.BadValue as error:
        raise CommandError(f"--keepalive: '{value}' {error.problem}.\n  {error.remedy}") from None
