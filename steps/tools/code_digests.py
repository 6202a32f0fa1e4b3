"""Digests of users' Python code, with what it imports from the same folder.

A change of the code makes the items stale that it was called for.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import shlex
import tokenize
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from paddock.engine.system.files import existing_file
from paddock.engine.system.no_links import open_file
from paddock.engine.system.python_syntax import parse_module

_MAX_MODULES = 1000  # of a folder: a tree of that size is read in a second


def file_content(file: Path, most_bytes: int = -1) -> bytes:
    try:
        with open_file(file, follows_links=True) as opened:
            return opened.read(most_bytes)
    except OSError:
        return b""


def python_modules_of(file: Path, folder: Path | None = None) -> list[Path]:
    """Return a Python file and all that it imports from a folder, else from its own, by name."""
    found = {file: None}
    waiting = [file]
    while waiting and len(found) < _MAX_MODULES:
        for module in _imported_files(waiting.pop(), folder or file.parent):
            if module not in found:
                found[module] = None
                waiting.append(module)
    return sorted(found)


def code_digests(file: Path) -> dict[str, str]:
    """Return the sha256 of the code of a Python file and of each module that it imports."""
    return {
        os.path.relpath(path, file.parent): hashlib.sha256(_code(file_content(path))).hexdigest()
        for path in python_modules_of(file)
    }


def code_digest(file: Path) -> str:
    lines = (f"{name} {digest}\n" for name, digest in code_digests(file).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _imported_files(file: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = parse_module(file_content(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, folder)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            at = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else folder
            yield from _modules(package, at)
            for alias in node.names:
                if alias.name == "*":  # `__all__` of a package may name its modules
                    yield from sorted(at.joinpath(*package.split(".")).glob("*.py"))
                else:
                    yield from _modules(f"{package}.{alias.name}", at)
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for name in node.args[:1] if function in ("import_module", "__import__") else ():
                yield from _modules(str(getattr(name, "value", "")), folder)


def _modules(name: str, folder: Path) -> Iterator[Path]:
    at = folder
    for part in filter(None, name.split(".")):
        if (at / f"{part}.py").is_file():
            yield at / f"{part}.py"
        at = at / part
        if (at / "__init__.py").is_file():
            yield at / "__init__.py"


def _code(content: bytes) -> bytes:
    r"""Return the lines of a Python file without comments.

    >>> _code(b"# Adds.\ndef add(a):  # one\n    return a + 1\n")
    b'def add(a):\n    return a + 1\n'
    """
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # as Python reads it
    lines = content.splitlines(keepends=True)
    try:
        for token in tokenize.tokenize(io.BytesIO(content).readline):
            row, column = token.start[0] - 1, token.start[1]
            if token.type == tokenize.COMMENT and not _NAMES_ENCODING.match(lines[row]):
                before = token.line[:column].rstrip()
                lines[row] = f"{before}\n".encode() if before else b""
    except (tokenize.TokenError, SyntaxError, ValueError, IndexError):
        return content
    return b"".join(lines)


_NAMES_ENCODING = re.compile(rb"[ \t\f]*#.*?coding[:=]")
"""A comment that says how the file's bytes are read."""


def files_named(words: Sequence[str], cwd: Path, inside: Collection[Path]) -> Iterator[Path]:
    """Yield the files below some folders that the words of a command name; blocking.

    With the modules that a Python script imports from its folder, and one that is run as a module
    (`-m`) from the working folder. A word may be an option with a value, or a whole command of a
    shell.
    """
    found: dict[Path, None] = {}
    words = [inner for word in words for inner in (word, *_words_within(word))]
    named: list[tuple[str, Path | None]] = [(word, None) for word in words]
    for name in sorted({after for word, after in pairwise(words) if word == "-m"}):
        module = name.replace(".", "/")
        named += [(f"{module}.py", cwd), (f"{module}/__main__.py", cwd)]
    for name, folder in named:
        path = existing_file(cwd, name)
        if path is None or not any(path.is_relative_to(root) for root in inside):
            continue
        is_script = path.suffix == ".py"
        found |= dict.fromkeys(python_modules_of(path, folder) if is_script else [path])
    yield from found


_VALUE = re.compile(r"-{0,2}[\w.-]+=(.+)", re.DOTALL)


def _words_within(word: str) -> Iterator[str]:
    """Yield the value of an option, and the words of a shell's text."""
    if (option := _VALUE.fullmatch(word)) is not None:
        yield option[1]
    if any(map(str.isspace, word)):
        try:
            yield from shlex.shlex(word, posix=True, punctuation_chars=True)
        except ValueError:  # a quotation mark without its end
            return
