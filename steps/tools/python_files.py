"""Functions and imports of users' Python files, read from their syntax trees: nothing is run."""

from __future__ import annotations

import ast
import importlib.util
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.no_links import open_file
from paddock.engine.system.python_syntax import parse_module
from paddock.pipelines.errors import did_you_mean


class FunctionNotFound(Exception):
    """A file lacks the function that is named: a sentence without its end, and a remedy."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}. {remedy}".strip())


def parse_python_file(path: Path, written: str) -> ast.Module:
    """Return a file's syntax tree; `written` names it. Runs nothing of it.

    Raises:
        FunctionNotFound: it cannot be read, or is not Python.
    """
    try:
        with open_file(path, follows_links=True) as file:
            return parse_module(file.read())
    except FileNotFoundError:
        remedy = "Paths are relative to the YAML; create or correct it."
        raise FunctionNotFound(f"there is no file '{written}'", remedy) from None
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise FunctionNotFound(f"the file '{written}' is not Python{line}: {error.msg}") from error
    except OSError as error:
        what = f"the file '{written}' cannot be read: {error.strerror or error}"
        raise FunctionNotFound(what) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise FunctionNotFound(f"the file '{written}' is not Python: {error}") from error


def check_function(file: Path, written: str, name: str) -> None:
    """Check that a file may define this function; runs none of it.

    Raises:
        FunctionNotFound: it does not, cannot be read, or is not Python.
    """
    tree = parse_python_file(file, written)
    # The names that a module may define
    names = [node.name for node in ast.walk(tree) if isinstance(node, (*_FUNCTIONS, ast.ClassDef))]
    names += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
    if name not in names:
        functions = [node.name for node in tree.body if isinstance(node, _FUNCTIONS)]
        what = f"there is no function '{name}' in '{written}'"
        raise FunctionNotFound(what, did_you_mean(name, functions))


def missing_imports(file: Path) -> list[str]:
    """Return the modules that a file imports at its top level and that are not installed.

    Runs none of it. Imports within `try`, `if` or a function may be meant to fail.
    """
    try:
        tree = parse_python_file(file, str(file))
    except FunctionNotFound:
        return []  # reported elsewhere
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names.append(node.module)
    missing: list[str] = []
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        is_there = (file.parent / f"{name}.py").exists() or (file.parent / name).is_dir()
        with suppress(ImportError, ValueError):
            is_there = is_there or importlib.util.find_spec(name) is not None
        if not is_there:
            missing.append(name)
    return missing


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
