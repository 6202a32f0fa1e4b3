"""The process in which Python functions of a user's are called: one after the other.

Requests come as lines of JSON where its standard input was, answers go to where its standard output
was; what the functions print goes to standard error. It ends when its input ends, and a function
that never returns is ended by the guard that started it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

MOST_BYTES = 16 * 1024 * 1024
"""Of an answer."""


class Refused(Exception):
    """Arguments that do not fit; one plain sentence."""


def main() -> None:
    """Answer until the input ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Functions, and what they start, print to standard error, and have nothing to read: what is
    # asked next is not for them.
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdout = sys.stderr
    from . import signature  # what takes its time is there before it is asked for anything

    _send(answers, {"ready": signature.__name__})
    loaded: dict[str, ModuleType] = {}
    for line in requests:
        _send(answers, _answer(json.loads(line), loaded))


def _send(answers: BinaryIO, answer: Mapping[str, Any]) -> None:
    line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    if len(line) > MOST_BYTES:
        what = f"it gave {len(line):,} bytes, and {MOST_BYTES:,} are the most."
        line = json.dumps({"refused": what}).encode()
    answers.write(line + b"\n")
    answers.flush()


def _answer(request: Mapping[str, Any], loaded: dict[str, ModuleType]) -> dict[str, Any]:
    from .signature import NoTool

    try:
        function = _function(request, loaded)
        if request["do"] == "describe":
            return {"value": _described(function)}
        return {"value": _called(function, request["args"])}
    except NoTool as error:
        is_missing = isinstance(error.__cause__, ModuleNotFoundError)
        return {"unusable": str(error), "is_missing": is_missing}
    except Refused as error:
        return {"refused": str(error)}
    except ModuleNotFoundError as error:  # no fault of what it was called with
        traceback.print_exc()
        return {"unusable": f"{_told(error, request)}.", "is_missing": True}
    except BaseException as error:  # a user's function may raise anything, `SystemExit` too
        traceback.print_exc()
        return {"refused": _told(error, request)}


def _function(request: Mapping[str, Any], loaded: dict[str, ModuleType]) -> Callable[..., Any]:
    from .signature import NoTool

    module, name = _module(request, loaded), request["name"]
    function: Any = module
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise NoTool(f"there is no function '{name}' in '{request['of']}'.")
    return function  # type: ignore[no-any-return]  # it was looked at


def _module(request: Mapping[str, Any], loaded: dict[str, ModuleType]) -> ModuleType:
    """Import a file or an installed module, once.

    Raises:
        NoTool: it cannot be imported.
    """
    from .signature import NoTool

    of, file = request["of"], request.get("file")
    place = file or of  # two pipelines of one run may both have a `tools.py`
    if place not in loaded:
        try:
            loaded[place] = _imported(Path(file)) if file else importlib.import_module(of)
        except BaseException as error:  # a user's module may even end the process
            traceback.print_exc()
            what = f"'{of}' cannot be imported: {type(error).__name__}: {error}".rstrip(": ")
            raise NoTool(f"{what}.") from error
    return loaded[place]


def _imported(file: Path) -> ModuleType:
    """Import a file; modules beside it can be imported by it."""
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    from . import signature

    return {
        "description": signature.words_of(function),
        "schema": signature.schema_of(signature.table_of(function)),
        "has_effects": bool(getattr(function, "has_effects", True)),
    }


def _called(function: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    from . import signature
    from .builtin import sentence_of

    table = signature.table_of(function)
    try:
        given = signature.given_to(table, args)
    except ValidationError as error:
        names = tuple(str(field.alias) for field in table.model_fields.values())
        raise Refused(sentence_of(error, names)) from error
    value = function(**given)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    try:
        plain = to_jsonable_python(value)
        json.dumps(plain, allow_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        kind = type(value).__name__
        raise signature.NoTool(f"it gave what is no plain data ({kind}): {error}.") from error
    return plain


def _told(error: BaseException, request: Mapping[str, Any]) -> str:
    """Say what a function raised, and in which line of its file."""
    file = request.get("file")
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if file and frame.filename == file
    ]
    where = f" ({request['of']}, line {lines[-1]})" if lines else ""
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{words}{where}"


if __name__ == "__main__":
    main()
