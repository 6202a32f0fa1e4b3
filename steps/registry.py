"""Find steps by their names: built-in ones and plug-ins alike are entry points.

Listing reads every package's metadata (10 ms with 200 packages), finding one of the language's own
steps that of one package alone; a step's module is imported when it is loaded.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

from paddock.engine.system.distribution import DISTRIBUTION

from .step import Output, Params, Step

GROUP = "paddock.steps"
ALIASES = {"summarize": "summarise"}


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
def _all() -> dict[str, tuple[EntryPoint, ...]]:
    """Collect the entry points by name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def _found() -> dict[str, tuple[EntryPoint, ...]]:
    """Give those that count: the language's own go before others of the same name."""
    return {name: _ours(points) or points for name, points in _all().items()}


def _ours(points: tuple[EntryPoint, ...]) -> tuple[EntryPoint, ...]:
    """Give the language's own among several; asking whose one is reads its package's metadata."""
    return tuple(point for point in points if _of(point) == DISTRIBUTION) if len(points) > 1 else ()


def _of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


@cache
def _own() -> dict[str, tuple[EntryPoint, ...]]:
    """Collect the language's own by name, without a look at other packages."""
    try:
        points = distribution(DISTRIBUTION).entry_points.select(group=GROUP)
    except PackageNotFoundError:
        return {}
    return {point.name: (point,) for point in points}


def _points(name: str) -> tuple[EntryPoint, ...]:
    name = ALIASES.get(name, name)
    return _own().get(name) or _found().get(name, ())


def is_known(name: str) -> bool:
    """Tell whether a step of this name, or alias, is installed; imports none."""
    return bool(_points(name))


def names() -> tuple[str, ...]:
    """Give the installed steps' names, sorted; imports none of them."""
    return tuple(sorted(_found()))


def load(name: str) -> type[Step[Any, Any]]:
    """Import one step.

    Raises:
        UnknownStep: with the known names.
        BrokenStep: with the package and the reason.
    """
    points = _points(name)
    if not points:
        raise UnknownStep(name, names())
    if len(points) > 1:
        raise BrokenStep(name, package(name), "more than one package brings it")
    try:
        kind = points[0].load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        raise BrokenStep(name, package(name), _words(error)) from error
    fault = _fault(kind)
    if fault:
        raise BrokenStep(name, package(name), f"{points[0].value} {fault}")
    return kind  # type: ignore[no-any-return]  # `_fault` has looked at its shape


def load_all() -> tuple[dict[str, type[Step[Any, Any]]], tuple[BrokenStep, ...]]:
    """Import every step that can be used, by name, and tell which cannot."""
    kinds: dict[str, type[Step[Any, Any]]] = {}
    broken: list[BrokenStep] = []
    for name in names():
        try:
            kinds[name] = _described(name, load(name))
        except BrokenStep as error:
            broken.append(error)
        why = "it has the name of one that comes with Paddock"
        hidden = [point for point in _all().get(name, ()) if point not in _found()[name]]
        broken += [BrokenStep(name, _of(point), why) for point in hidden]
    return kinds, tuple(broken)


def _described(name: str, kind: type[Step[Any, Any]]) -> type[Step[Any, Any]]:
    """Give a step that can be told to people and to editors.

    Raises:
        BrokenStep: what it takes or gives has no JSON Schema.
    """
    try:
        kind.params.model_json_schema()
        kind.output.model_json_schema()
    except Exception as error:  # Pydantic says so in many ways
        why = f"its parameters and outputs cannot be told: {_words(error)}"
        raise BrokenStep(name, package(name), why) from error
    return kind


def _words(error: BaseException) -> str:
    """Say in one line what an error is, without a library's advice below it."""
    first = str(error).strip().partition("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(first.split())}"


def package(name: str) -> str:
    """Tell which package brings a step; several ones are joined, none gives an empty text."""
    return " and ".join(map(_of, _points(name)))


def _fault(kind: object) -> str:
    """Say what keeps `kind` from being a step, in words that follow its name."""
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
