"""Modules of a folder that have the names of Python's own: no process of ours may import them."""

from pathlib import Path

NAMES = (
    "argparse", "asyncio", "base64", "dataclasses", "email", "hashlib", "http", "inspect", "json",
    "logging", "multiprocessing", "pickle", "platform", "random", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "ssl", "struct", "subprocess", "tempfile", "threading", "token",
    "tokenize", "traceback", "typing", "urllib", "uuid", "weakref",
)  # fmt: skip


def add_foreign_modules(folder: Path) -> Path:
    """Write them into a folder; return the file to which each adds its name when it is imported."""
    mark = folder.with_name(f"{folder.name}-imported")
    for name in NAMES:
        code = f"open({str(mark)!r}, 'a').write('{name} ')\nraise ImportError('a foreign {name}')\n"
        (folder / f"{name}.py").write_text(code, "utf-8")
    return mark
