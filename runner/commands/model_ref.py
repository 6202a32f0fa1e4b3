"""The models that a command is given: names, and paths of GGUF files."""

from __future__ import annotations

from pathlib import Path

from .exits import CommandError

HELP = "A name, as `paddock list` shows it, or a GGUF file."


def meant(text: str) -> str:
    """Return the name of a model, or the whole path of a GGUF file.

    A file of a hub is meant by the name under which `paddock pull` keeps it.

    Raises:
        CommandError: a path is given that leads to no GGUF file, with what is near.
    """
    from paddock.engine.errors import ModelBroken, NoModelFile
    from paddock.engine.gguf import check_file
    from paddock.engine.store.names import is_path

    ref = whole(text)
    if is_path(text) and not text.startswith("hf:"):
        try:
            check_file(Path(ref), text)
        except NoModelFile:
            raise CommandError(f"no such file: '{text}'.{_near(Path(ref))}") from None
        except ModelBroken as error:
            raise CommandError(f"'{text}': {error.why}.") from None
    return ref


def whole(text: str) -> str:
    """Return the same without looking whether the file is there."""
    from paddock.engine.store.names import is_path

    if text.startswith("hf:"):
        from paddock.engine.store.transfer.sources import read_source

        return str(read_source(text).name)
    return str(Path(text).expanduser().resolve()) if is_path(text) else text


def _near(path: Path) -> str:
    """Name the GGUF files of the folder, if it has some."""
    from paddock.pipelines.errors import known

    names = sorted(file.name for file in path.parent.glob("*.gguf"))
    return f"\n  {known(path.name, names)}" if names else ""
