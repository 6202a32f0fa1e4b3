"""Registry of steps and check functions, built in and of plug-ins, by entry points.

Listing reads every package's metadata (10 ms with 200 packages); finding a built-in step reads
that of one package alone. A step's or function's module is imported when it is loaded. A package
registers a check function under `paddock.checks`; the contract is
`paddock.pipelines.checking.check.CheckFunction`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

from paddock.engine.system.distribution import DISTRIBUTION
from paddock.pipelines.checking.check import CheckFunction

from .base import Output, Params, Step

STEP_GROUP = "paddock.steps"
STEP_ALIASES = {"summarize": "summarise"}


class UnknownStep(LookupError):
    """No step of this name is installed."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        self.known = known
        import difflib

        self.near = tuple(difflib.get_close_matches(name, known, n=1))
        names = ", ".join(f"'{word}'" for word in known)
        hint = f" Did you mean '{self.near[0]}'?" if self.near else ""
        super().__init__(f"step '{name}' is not installed. Known: {names}.{hint}")


class BrokenStep(Exception):
    """An installed step that cannot be used: the package that brings it must be mended."""

    def __init__(self, name: str, package: str, why: str) -> None:
        self.name = name
        self.package = package
        self.why = why
        super().__init__(
            f"step '{name}' of package '{package}' cannot be used: {why}. "
            f"Update or remove '{package}'."
        )


@cache
def _all_points() -> dict[str, tuple[EntryPoint, ...]]:
    """Collect the entry points by name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=STEP_GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def _effective_points() -> dict[str, tuple[EntryPoint, ...]]:
    """Return those that count: the language's own go before others of the same name."""
    return {name: _own_among(points) or points for name, points in _all_points().items()}


def _own_among(points: tuple[EntryPoint, ...]) -> tuple[EntryPoint, ...]:
    """Return the language's own among several; asking whose one is reads its package's metadata."""
    return (
        tuple(point for point in points if _package_of(point) == DISTRIBUTION)
        if len(points) > 1
        else ()
    )


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


@cache
def _own_points() -> dict[str, tuple[EntryPoint, ...]]:
    """Collect the language's own by name, without a look at other packages."""
    try:
        points = distribution(DISTRIBUTION).entry_points.select(group=STEP_GROUP)
    except PackageNotFoundError:
        return {}
    return {point.name: (point,) for point in points}


def _points_of(name: str) -> tuple[EntryPoint, ...]:
    name = STEP_ALIASES.get(name, name)
    return _own_points().get(name) or _effective_points().get(name, ())


def is_known_step(name: str) -> bool:
    """Return whether a step of this name, or alias, is installed; imports none."""
    return bool(_points_of(name))


def step_names() -> tuple[str, ...]:
    """Return the installed steps' names, sorted; imports none of them."""
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
    if len(points) > 1:
        raise BrokenStep(name, step_package(name), "more than one package brings it")
    try:
        kind = points[0].load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        raise BrokenStep(name, step_package(name), _one_line_error(error)) from error
    fault = _step_fault(kind)
    if fault:
        raise BrokenStep(name, step_package(name), f"{points[0].value} {fault}")
    return kind  # type: ignore[no-any-return]  # `_step_fault` has looked at its shape


def load_all_steps() -> tuple[dict[str, type[Step[Any, Any]]], tuple[BrokenStep, ...]]:
    """Import every step that can be used, by name, and tell which cannot."""
    kinds: dict[str, type[Step[Any, Any]]] = {}
    broken: list[BrokenStep] = []
    for name in step_names():
        try:
            kinds[name] = _with_json_schema(name, load_step(name))
        except BrokenStep as error:
            broken.append(error)
        why = "it has the name of one that comes with Paddock"
        hidden = [
            point for point in _all_points().get(name, ()) if point not in _effective_points()[name]
        ]
        broken += [BrokenStep(name, _package_of(point), why) for point in hidden]
    return kinds, tuple(broken)


def _with_json_schema(name: str, kind: type[Step[Any, Any]]) -> type[Step[Any, Any]]:
    """Return a step that can be told to people and to editors.

    Raises:
        BrokenStep: what it takes or gives has no JSON Schema.
    """
    try:
        kind.params.model_json_schema()
        kind.output.model_json_schema()
    except Exception as error:  # Pydantic says so in many ways
        why = f"its parameters and outputs cannot be told: {_one_line_error(error)}"
        raise BrokenStep(name, step_package(name), why) from error
    return kind


def _one_line_error(error: BaseException) -> str:
    """Say in one line what an error is, without a library's advice below it."""
    first = str(error).strip().partition("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(first.split())}"


def step_package(name: str) -> str:
    """Return which package brings a step; several ones are joined, none gives an empty text."""
    return " and ".join(map(_package_of, _points_of(name)))


def _step_fault(kind: object) -> str:
    """Return what keeps `kind` from being a step, in words that follow its name."""
    if not inspect.isclass(kind):
        return "is not a class"
    for field, base in (("params", Params), ("output", Output)):
        given = getattr(kind, field, None)
        if not (inspect.isclass(given) and issubclass(given, base)):
            return f"has no `{field}` that is a subclass of {base.__module__}.{base.__name__}"
    missing = [word for word in ("version", "is_pure", "roles") if not hasattr(kind, word)]
    missing += [word for word in ("reads", "run") if not callable(getattr(kind, word, None))]
    if missing:
        return f"lacks {', '.join(f'`{word}`' for word in missing)}"
    return next(
        (
            f"has a `{word}` that is no {form.__name__}"
            for word, form in (("version", int), ("is_pure", bool), ("roles", frozenset))
            if not isinstance(getattr(kind, word), form)
        ),
        "",
    )


CHECK_GROUP = "paddock.checks"


class BrokenCheck(Exception):
    """An installed check function that cannot be used: its package must be mended."""

    def __init__(self, name: str, package: str, why: str) -> None:
        self.name = name
        self.package = package
        super().__init__(
            f"check function '{name}' of package '{package}' cannot be used: {why}. "
            f"Update or remove '{package}'."
        )


class CheckFunctions(Mapping[str, CheckFunction]):
    """All of them by name; the language's own go before others of the same name."""

    def __getitem__(self, name: str) -> CheckFunction:
        """Return a function.

        Raises:
            KeyError: there is none of this name.
            BrokenCheck: it cannot be imported, or is no function.
        """
        if name in _own_checks():
            return _own_checks()[name]
        return _load_check(name, _check_points()[name])

    def __contains__(self, name: object) -> bool:
        """Return whether there is one; imports none."""
        return name in _own_checks() or name in _check_points()

    def __iter__(self) -> Iterator[str]:
        """Yield the names, sorted."""
        return iter(sorted({*_own_checks(), *_check_points()}))

    def __len__(self) -> int:
        """Count them."""
        return len({*_own_checks(), *_check_points()})


CHECK_FUNCTIONS = CheckFunctions()


def check_package(name: str) -> str:
    """Return which package brings a function; empty for an unknown one."""
    if name in _own_checks():
        return DISTRIBUTION
    point = _check_points().get(name)
    return _package_of_check(point) if point else ""


def _own_checks() -> Mapping[str, CheckFunction]:
    """Return the language's own; they are imported when a check is at hand, which few files have."""
    from paddock.pipelines.checking.functions import BUILT_IN

    return BUILT_IN


@cache
def _check_points() -> dict[str, EntryPoint]:
    """Collect the entry points by name; of two with one name the package first in order is it."""
    points = sorted(
        entry_points(group=CHECK_GROUP), key=lambda point: (point.name, _package_of_check(point))
    )
    return {point.name: point for point in reversed(points)}


def _package_of_check(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


@cache
def _load_check(name: str, point: EntryPoint) -> CheckFunction:
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        raise BrokenCheck(
            name, _package_of_check(point), f"{type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise BrokenCheck(name, _package_of_check(point), f"{point.value} is no function")
    return found  # type: ignore[no-any-return]  # what it gives is looked at when it is called
