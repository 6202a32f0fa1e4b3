"""A model's files: the names of its parts, whether all are there, and whether they begin as GGUF.

What is in them: `gguf`.
"""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ModelBroken, NoModelFile, NotGguf
from .system.no_links import open_file

_MAX_PARTS = 1024
"""Files are untrusted, and a name of a few characters can ask for any amount of work."""
_SPLIT_FILE_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<n>\d{5})\.gguf")

_FOREIGN_FORMATS = {
    b"lmgg": "an old GGML file; llama.cpp reads only GGUF. Convert it or take a newer one",
    b"fmgg": "an old GGMF file; llama.cpp reads only GGUF. Convert it or take a newer one",
    b"tjgg": "an old GGJT file; llama.cpp reads only GGUF. Convert it or take a newer one",
    b"PK\x03\x04": "a zip archive or a PyTorch checkpoint, not a GGUF file",
    b"vers": "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`",
}


def check_file(path: Path, ref: str) -> None:
    """Check quickly that a file exists, begins like GGUF, and has all its parts.

    Raises:
        NoModelFile: there is no such file; both errors name it as `ref`.
        ModelBroken: it is a folder, cannot be read, has another format, or parts are missing.
    """
    if path.is_dir():
        names = sorted(file.name for file in path.glob("*.gguf"))
        has = f"it has {', '.join(map(repr, names[:3]))}" if names else "it has no GGUF file"
        raise ModelBroken(ref, f"this is a folder, and a model is one file; {has}")
    try:
        with open_file(path, follows_links=True) as file:
            magic = file.read(4)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a path has no null
        raise NoModelFile(ref) from None
    except OSError as error:
        raise ModelBroken(ref, f"the file cannot be read: {error.strerror or error}") from None
    check_magic(ref, magic)
    part = _SPLIT_FILE_NAME.fullmatch(path.name)
    if part is None:
        return
    number, names = int(part["number"]), split_file_names(path.name)
    if number != 1:
        raise ModelBroken(
            ref, f"this is part {number} of {len(names)}; name the first, '{names[0]}'"
        )
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise ModelBroken(
            ref, f"this is the first of {len(names)} parts, and '{missing[0]}' is missing"
        )


def split_file_names(name: str) -> list[str]:
    """Return the names of all files of a split model, or the name of a single file.

    >>> split_file_names("a-00002-of-00002.gguf"), split_file_names("a.gguf")
    (['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf'], ['a.gguf'])
    """
    part = _SPLIT_FILE_NAME.fullmatch(name)
    if part is None or not 0 < int(part["n"]) <= _MAX_PARTS:
        return [name]
    n_parts = int(part["n"])
    return [f"{part['stem']}-{n:05}-of-{n_parts:05}.gguf" for n in range(1, n_parts + 1)]


def check_magic(ref: str, magic: bytes) -> None:
    """Check a file's first four bytes.

    Raises:
        ModelBroken: they are not those of GGUF; the error names the file as `ref`.
    """
    if magic in _FOREIGN_FORMATS:
        raise ModelBroken(ref, f"this is {_FOREIGN_FORMATS[magic]} (it begins with {magic!r})")
    if magic != b"GGUF":  # what it is instead may be a secret: a pipeline can name any file
        raise NotGguf(ref)
