"""A function of a Python file next to the pipeline, as a step: `uses: ./my_steps.py:clean`.

Its parameters are parsed from the file's text, so that checking a pipeline runs none of it. It is
called in another process, like a tool, and only with the caller's permission.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from paddock.engine.system.python_syntax import parse_expression
from paddock.pipelines.errors import did_you_mean
from paddock.steps.tools.code_digests import code_digest
from paddock.steps.tools.function_signature import documented_arguments
from paddock.steps.tools.python_files import FunctionNotFound, parse_python_file
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE

from .base import Output, Params, Step, StepError, Tools
from .run_pipeline import named_outputs

DEFAULT_TIMEOUT_S = 600.0  # ten times a tool's: no person waits for it
_PLAIN_TYPES: dict[str, Any] = {
    **{"str": str, "int": int, "float": float, "bool": bool, "None": None},
    **{"list": list[Any], "dict": dict[str, Any], "List": list[Any], "Dict": dict[str, Any]},
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class FunctionOutput(Output):
    """Outputs of a function: the keys of the mapping that it returns, else `result`."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class PythonStep(Step[Params, FunctionOutput]):
    """A function of a Python file, called in another process."""

    uses: ClassVar[str] = ""
    params = Params
    output = FunctionOutput
    version = 0
    """From the code of the file and of what it imports beside it: a change makes results stale."""

    async def run(self, params: Params, tools: Tools) -> FunctionOutput:
        limit_s = tools.timeout.total_s or DEFAULT_TIMEOUT_S
        tool = await tools.calls.toolset.tool(self.uses, options={"timeout": f"{limit_s:.3f}s"})
        result = await tool.call(params.model_dump(exclude_unset=True, mode="json"))
        if result.is_error:
            raise StepError(result.sentence())
        return FunctionOutput(**named_outputs(result.value))


def step_of(uses: str, base: Path) -> type[Step[Any, Any]]:
    """Return the step that a function is; runs nothing of its file, which must lie under `base`.

    Raises:
        FunctionNotFound: there is none, or it cannot be a step.
    """
    found = FUNCTION_REFERENCE.match(uses)
    assert found is not None
    name, root = found["file"], base.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a circle of links
        raise FunctionNotFound(f"the file '{name}' cannot be read: {error}") from error
    if not path.is_relative_to(root):
        what = f"the file '{name}' lies outside the pipeline's folder"
        raise FunctionNotFound(what, "Move or copy it there.")
    tree = parse_python_file(path, name)
    functions = {node.name: node for node in tree.body if isinstance(node, _FUNCTIONS)}
    function = functions.get(found["name"])
    if function is None:
        what = f"there is no function '{found['name']}' in '{name}'"
        raise FunctionNotFound(what, did_you_mean(found["name"], functions))
    doc = ast.get_docstring(function) or ""
    docs = documented_arguments(doc)
    fields: dict[str, Any] = {}
    for argument, default in _arguments(function):
        # The class of parameters uses some names itself
        is_taken = argument.arg in Params.__dict__ or argument.arg.startswith(("_", "model_"))
        if is_taken or not callable(getattr(BaseModel, argument.arg, len)):
            what = f"the argument '{argument.arg}' of '{function.name}' has a reserved name"
            raise FunctionNotFound(what, "Rename it.")
        given: Any = ...
        if default is not None:
            try:
                given = ast.literal_eval(default)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                given = None  # it is computed
        field = Field(default=given, description=docs.get(argument.arg))
        fields[argument.arg] = (_type_of_hint(argument.annotation), field)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an argument called `schema` or `json`
        params_model = create_model(f"{function.name}_params", __base__=Params, **fields)
    members = {
        "__doc__": " ".join(doc.partition("\n\n")[0].split()) or f"The function {function.name}.",
        "uses": uses,
        "params": params_model,
        "version": int(code_digest(path)[:12], 16),
    }
    return type("OwnFunction", (PythonStep,), members)


def _arguments(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    args = function.args
    star = args.vararg or args.kwarg
    if args.posonlyargs or star is not None:
        stars = "**" if star is args.kwarg else "*"
        shown = f"{stars}{star.arg}" if star is not None else args.posonlyargs[0].arg
        what = (
            f"the function '{function.name}' takes `{shown}`, but parameters of a step need names"
        )
        raise FunctionNotFound(what, "Give each argument a name of its own.")
    missing = [None] * (len(args.args) - len(args.defaults))
    yield from zip(args.args, [*missing, *args.defaults], strict=True)
    yield from zip(args.kwonlyargs, args.kw_defaults, strict=True)


def _type_of_hint(node: ast.expr | None) -> Any:
    """Return the type of a hint; `Any` for what is not plain.

    >>> _type_of_hint(parse_expression("list[str] | None")) == (list[str] | None)
    True
    """
    if isinstance(node, ast.Constant):
        if node.value is None:
            return None
        text = node.value if isinstance(node.value, str) else "object"
        try:
            return _type_of_hint(parse_expression(text))
        except (SyntaxError, ValueError, RecursionError):
            return Any
    if isinstance(node, ast.Name | ast.Attribute):
        return _PLAIN_TYPES.get(node.id if isinstance(node, ast.Name) else node.attr, Any)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[_type_of_hint(node.left), _type_of_hint(node.right)]  # noqa: UP007 - of values, not of hints
    return _generic_type(node) if isinstance(node, ast.Subscript) else Any


def _generic_type(node: ast.Subscript) -> Any:
    holder = getattr(node.value, "id", getattr(node.value, "attr", ""))
    match holder, node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
        case "list" | "List" | "Sequence" | "Iterable", [item]:
            return list[_type_of_hint(item)]  # type: ignore[misc]  # a type that is made here
        case "dict" | "Dict" | "Mapping", [_, value]:
            return dict[str, _type_of_hint(value)]  # type: ignore[misc]
        case "Optional", [inner]:
            return Union[_type_of_hint(inner), None]  # noqa: UP007
        case "Annotated", [inner, *_]:
            return _type_of_hint(inner)
        case "Literal", values if all(isinstance(value, ast.Constant) for value in values):
            return Literal[tuple(v.value for v in values if isinstance(v, ast.Constant))]
    return Any
