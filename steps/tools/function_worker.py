"""Worker process for users' Python functions; its argument is the folder of their bytecode.

Functions are called one after the other. Requests come as frames on the original standard input,
answers go to the original standard output; what the functions print goes to standard error. The
process ends when its input ends, and a function that never returns is ended by the guard that
started the process.
"""

from __future__ import annotations

import asyncio  # before the user's folder, whose files may have names of its modules
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from paddock.engine.system.frames import (
    FrameHead,
    answer_frames,
    pack_frame,
    send_frame,
    take_pipes,
)

from .function_signature import (
    NotATool,
    arguments_model,
    description_of,
    schema_of_arguments,
    typed_arguments,
    validation_sentence,
)

MOST_MESSAGE_BYTES = 16 * 1024 * 1024


class FunctionRefused(Exception):
    """Invalid arguments; the message is a plain sentence."""


def main() -> None:
    requests, answers = take_pipes()
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = sys.argv[1]
    send_frame(answers, pack_frame({"ready": __name__}))
    loaded: dict[str, ModuleType] = {}

    def answered(request: FrameHead) -> bytes:
        frame = pack_frame(_answer_request(request, loaded))
        if len(frame) <= MOST_MESSAGE_BYTES:
            return frame
        what = f"it gave {len(frame):,} bytes; at most {MOST_MESSAGE_BYTES:,} are allowed."
        return pack_frame({"refused": what})

    answer_frames(requests, answers, answered)


def _answer_request(request: Mapping[str, Any], loaded: dict[str, ModuleType]) -> dict[str, Any]:
    try:
        function = _load_function(request, loaded)
        if request["do"] == "describe":
            described = {
                "description": description_of(function),
                "schema": schema_of_arguments(arguments_model(function)),
                "has_effects": bool(getattr(function, "has_effects", True)),
            }
            return {"value": described}
        return {"value": _call_function(function, request["args"])}
    except NotATool as error:
        is_missing = isinstance(error.__cause__, ModuleNotFoundError)
        return {"unusable": str(error), "is_missing": is_missing}
    except FunctionRefused as error:
        return {"refused": str(error)}
    except ModuleNotFoundError as error:  # not a fault of the arguments
        traceback.print_exc()
        return {"unusable": f"{_error_words(error, request)}.", "is_missing": True}
    except BaseException as error:  # a user's function may raise anything, `SystemExit` too
        traceback.print_exc()
        return {"refused": _error_words(error, request)}


def _load_function(request: Mapping[str, Any], loaded: dict[str, ModuleType]) -> Callable[..., Any]:
    of, file = request["of"], request.get("file")
    place = file or of  # two pipelines of one run may both have a `tools.py`
    if place not in loaded:
        try:
            loaded[place] = _import_file(Path(file)) if file else importlib.import_module(of)
        except BaseException as error:  # a user's module may even end the process
            traceback.print_exc()
            what = f"'{of}' cannot be imported: {type(error).__name__}: {error}".rstrip(": ")
            raise NotATool(f"{what}.") from error
    function: Any = loaded[place]
    for part in request["name"].split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise NotATool(f"there is no function '{request['name']}' in '{of}'.")
    return function  # type: ignore[no-any-return]  # it was looked at


class _SourceLoader(SourceFileLoader):
    """Compiles a module each time: bytecode files know its source by size and second only."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _import_file(file: Path) -> ModuleType:
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)

        def finder(path: str) -> FileFinder:  # for the folders within, but for installed packages
            if path != folder and not path.startswith(f"{folder}{os.sep}"):
                raise ImportError("it is another folder")
            if "site-packages" in path or not os.path.isdir(path):  # noqa: PTH112 - a path hook
                raise ImportError("it holds installed packages, or is no folder")
            extensions = (ExtensionFileLoader, EXTENSION_SUFFIXES)
            return FileFinder(path, extensions, (_SourceLoader, SOURCE_SUFFIXES))

        sys.path_hooks.insert(0, finder)
        sys.path_importer_cache.pop(folder, None)
    loader = _SourceLoader(file.stem, str(file))
    spec = importlib.util.spec_from_file_location(file.stem, file, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _call_function(function: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    table = arguments_model(function)
    try:
        given = typed_arguments(table, args)
    except ValidationError as error:
        names = tuple(str(field.alias) for field in table.model_fields.values())
        raise FunctionRefused(validation_sentence(error, names)) from error
    value = function(**given)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    try:
        plain = to_jsonable_python(value)
        json.dumps(plain, allow_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        kind = type(value).__name__
        raise NotATool(f"it did not return plain data ({kind}): {error}.") from error
    return plain


def _error_words(error: BaseException, request: Mapping[str, Any]) -> str:
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
