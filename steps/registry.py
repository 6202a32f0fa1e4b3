"""Registry of steps and check functions, built in and of plug-ins.

A step's or function's module is imported when it is loaded. The contract of a check function is
`paddock.pipelines.checking.functions.CheckFunction`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import EntryPoint
from inspect import isclass
from typing import TYPE_CHECKING, Any

from paddock.engine.system.distribution import DISTRIBUTION
from paddock.engine.system.records import replace
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.keys import STEP_ALIASES
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE

from .base import Output, Params, Step
from .facts import Facts
from .param_types import types_of
from .plugins import (
    CHECK_GROUP,
    STEP_GROUP,
    BrokenPlugin,
    PluginImportError,
    lacking,
    load_only,
    load_plugin,
    own_plugins,
    package_of,
    plugins,
)

if TYPE_CHECKING:
    from paddock.engine.request import Role
    from paddock.pipelines.checking.functions import CheckFunction


class UnknownStep(LookupError):
    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        self.known = known
        super().__init__(f"step '{name}' is not installed. {did_you_mean(name, known)}")


class BrokenStep(BrokenPlugin):
    kind = "step"


@cache
def _effective_points() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the steps by name; Paddock's own go before others of the same name."""
    found = {}
    for name, points in plugins(STEP_GROUP).items():
        own = tuple(p for p in points if len(points) > 1 and package_of(p) == DISTRIBUTION)
        found[name] = own or points
    return found


def own_name(name: str) -> str:
    """Return the step's name for an alias, such as `summarize`; any other name unchanged."""
    return STEP_ALIASES.get(name, name)


def _points_of(name: str) -> tuple[EntryPoint, ...]:
    name = own_name(name)
    return own_plugins(STEP_GROUP).get(name) or _effective_points().get(name, ())


def step_names() -> tuple[str, ...]:
    return tuple(sorted(_effective_points()))


def load_step(name: str) -> type[Step[Any, Any]]:
    """Import one step.

    Raises:
        UnknownStep: with the known names.
        BrokenStep: with the package and the reason.
    """
    points = _points_of(name)
    if not points:
        raise UnknownStep(name, step_names())
    is_own = points is own_plugins(STEP_GROUP).get(own_name(name))  # its form a test has looked at
    fault = (lambda kind: "") if is_own else _step_fault
    kind: type[Step[Any, Any]] = load_only(name, points, BrokenStep, fault)
    return kind


@cache
def facts_of(name: str) -> Facts:
    """Return what is known of a step by its name; imports it, which `bind` has done before.

    Of functions of files, unknown and broken steps nothing is known.
    """
    try:
        return facts_of_kind(load_step(name))
    except (UnknownStep, BrokenStep):
        return Facts()


@lru_cache(maxsize=1024)
def facts_of_kind(kind: type[Step[Any, Any]]) -> Facts:
    params: Any = kind.params
    return replace(getattr(kind, "facts", Facts()), types=types_of(params))


def load_all_steps() -> tuple[dict[str, type[Step[Any, Any]]], tuple[BrokenStep, ...]]:
    """Import every step; return those that can be used, by name, and those that cannot."""
    kinds: dict[str, type[Step[Any, Any]]] = {}
    broken: list[BrokenStep] = []
    for name in step_names():
        try:
            kind = load_step(name)
            kind.params.model_json_schema()
            kind.output.model_json_schema()
            kinds[name] = kind
        except BrokenStep as error:
            broken.append(error)
        except Exception as error:  # Pydantic says so in many ways
            what = f"its parameters and outputs have no JSON Schema: {PluginImportError(error)}"
            broken.append(BrokenStep(name, step_package(name), what))
        why = "it has the name of one that comes with Paddock"
        shown = _effective_points()[name]
        hidden = [point for point in plugins(STEP_GROUP).get(name, ()) if point not in shown]
        broken += [BrokenStep(name, package_of(point), why) for point in hidden]
    return kinds, tuple(broken)


def step_package(name: str) -> str:
    """Return the packages of a step, joined; empty for an unknown one."""
    return " and ".join(map(package_of, _points_of(name)))


def _step_fault(kind: object) -> str:
    if not isclass(kind):
        return "is not a class"
    for field, base in (("params", Params), ("output", Output)):
        given = getattr(kind, field, None)
        if not (isclass(given) and issubclass(given, base)):
            return f"has no `{field}` that is a subclass of {base.__module__}.{base.__name__}"
    forms = {"version": int, "is_pure": bool, "roles": frozenset}
    if lacks := lacking(kind, tuple(forms), ("reads", "run")):
        return lacks
    for word, form in forms.items():
        if not isinstance(getattr(kind, word), form):
            return f"has a `{word}` that is no {form.__name__}"
    return ""


class UnusableCheckPlugin(BrokenPlugin):
    kind = "check function"


class CheckFunctions(Mapping[str, "CheckFunction"]):
    """All check functions by name; built-in ones go before others of the same name."""

    def __getitem__(self, name: str) -> CheckFunction:
        """Return a function.

        Raises:
            KeyError: there is none of this name.
            UnusableCheckPlugin: it cannot be imported, or is no function.
        """
        if name in _own_checks():
            return _own_checks()[name]
        return _load_check(name, plugins(CHECK_GROUP)[name][0])

    def __contains__(self, name: object) -> bool:
        """Return whether there is one; imports none."""
        return name in _own_checks() or name in plugins(CHECK_GROUP)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*_own_checks(), *plugins(CHECK_GROUP)}))

    def __len__(self) -> int:
        return len({*_own_checks(), *plugins(CHECK_GROUP)})


CHECK_FUNCTIONS = CheckFunctions()


def check_package(name: str) -> str:
    """Return the package of a function; empty for an unknown one."""
    if name in _own_checks():
        return DISTRIBUTION
    points = plugins(CHECK_GROUP).get(name)
    return package_of(points[0]) if points else ""


def _own_checks() -> Mapping[str, CheckFunction]:
    """Return the built-in functions; few files have a check, so they are imported here."""
    from paddock.pipelines.checking.functions import BUILT_IN

    return BUILT_IN


@cache
def _load_check(name: str, point: EntryPoint) -> CheckFunction:
    try:
        found = load_plugin(point)
    except PluginImportError as error:
        raise UnusableCheckPlugin(name, package_of(point), str(error)) from error
    if not callable(found):
        raise UnusableCheckPlugin(name, package_of(point), f"{point.value} is no function")
    return found  # type: ignore[no-any-return]  # its result is checked when it is called


def own_roles(kind: type[Any], written: Mapping[str, Any]) -> frozenset[Role]:
    """Return the roles that a step's `model` may have, by the parameters that are written."""
    chosen = getattr(kind, "own_roles", None)
    roles: frozenset[Role] = kind.roles if chosen is None else chosen(written)
    return roles


def roles_besides(kind: type[Any], written: Mapping[str, Any]) -> frozenset[Role]:
    """Return the roles of which a step also calls the default model, by what is written."""
    chosen = getattr(kind, "roles_besides", None)
    return frozenset() if chosen is None else frozenset(chosen(written))


def takes_reply(kind: type[Any]) -> bool:
    return bool(getattr(kind, "takes_reply", False))


def is_function_reference(uses: str) -> bool:
    """Return whether `uses` names a function of a file.

    >>> is_function_reference("./my_steps.py:clean"), is_function_reference("files.read")
    (True, False)
    """
    return FUNCTION_REFERENCE.match(uses) is not None
