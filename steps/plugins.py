"""Plug-ins: entry points of steps, checks, readers, table formats, tools, triggers, effects.

Listing a group reads the metadata of every package (10 ms with 200 packages). A plug-in is imported
when it is loaded. Reader processes import this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any, ClassVar

from paddock.engine.system.distribution import DISTRIBUTION

STEP_GROUP = "paddock.steps"
CHECK_GROUP = "paddock.checks"
READER_GROUP = "paddock.readers"
TABLE_GROUP = "paddock.tables"
TOOL_GROUP = "paddock.tools"
TRIGGER_GROUP = "paddock.triggers"
EFFECT_GROUP = "paddock.effects"


class BrokenPlugin(Exception):
    kind: ClassVar[str]

    def __init__(self, name: str, package: str, why: str) -> None:
        self.name = name
        self.package = package
        self.why = why
        self.message = f"{self.kind} '{name}' of package '{package}' cannot be used: {why}"
        self.remedy = f"Update or remove '{package}'."
        super().__init__(f"{self.message}. {self.remedy}")


class PluginImportError(Exception):
    def __init__(self, error: BaseException) -> None:
        self.is_missing = isinstance(error, ModuleNotFoundError)
        """A module that it imports is not installed."""
        # A library's advice below the first paragraph is left out.
        first = str(error).strip().partition("\n\n")[0]
        super().__init__(f"{type(error).__name__}: {' '.join(first.split())}")


@cache
def plugins(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, package_of(p))):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def own_plugins(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return Paddock's own entry points by name; reads no other package."""
    try:
        points = distribution(DISTRIBUTION).entry_points.select(group=group)
    except PackageNotFoundError:
        return {}
    return {point.name: (point,) for point in points}


def package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else DISTRIBUTION


def lacking(kind: type[Any], values: Sequence[str], methods: Sequence[str]) -> str:
    """Return which attributes of a contract a class lacks, in words that follow its name."""
    missing = [word for word in values if not hasattr(kind, word)]
    missing += [word for word in methods if not callable(getattr(kind, word, None))]
    return f"lacks {', '.join(f'`{word}`' for word in missing)}" if missing else ""


def load_only(
    name: str, points: Sequence[EntryPoint], broken: type[BrokenPlugin], fault: Callable[[Any], str]
) -> Any:
    """Import what the one entry point of a name stands for.

    `fault` returns why it is none of its kind, in words that follow its name.

    Raises:
        BrokenPlugin: `broken`, with the package and the reason.
    """
    found = None
    why = "more than one package brings it"
    error: PluginImportError | None = None
    if len(points) == 1:
        try:
            found = load_plugin(points[0])
            why = fault(found)
            why = why and f"{points[0].value} {why}"
        except PluginImportError as failure:
            error, why = failure, str(failure)
    if why:  # only then: it reads the package's metadata
        raise broken(name, " and ".join(map(package_of, points)), why) from error
    return found


def load_plugin(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # an import may raise anything
        raise PluginImportError(error) from error
