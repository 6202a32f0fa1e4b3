"""The functions that checks may call: the language's own, and those that other packages bring.

A package registers a function under the entry-point group `paddock.checks`; what it takes and
gives is told at `paddock.pipelines.checking.check.CheckFunction`. It is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from paddock.engine.system.distribution import DISTRIBUTION
from paddock.pipelines.checking.check import CheckFunction

GROUP = "paddock.checks"


class BrokenCheck(Exception):
    """An installed check function that cannot be used: its package must be mended."""

    def __init__(self, name: str, package: str, why: str) -> None:
        self.name = name
        self.package = package
        super().__init__(
            f"check function '{name}' of package '{package}' cannot be used: {why}. "
            f"Update or remove '{package}'."
        )


class Functions(Mapping[str, CheckFunction]):
    """All of them by name; the language's own go before others of the same name."""

    def __getitem__(self, name: str) -> CheckFunction:
        """Give a function.

        Raises:
            KeyError: there is none of this name.
            BrokenCheck: it cannot be imported, or is no function.
        """
        if name in _own():
            return _own()[name]
        return _loaded(name, _found()[name])

    def __contains__(self, name: object) -> bool:
        """Tell whether there is one; imports none."""
        return name in _own() or name in _found()

    def __iter__(self) -> Iterator[str]:
        """Give the names, sorted."""
        return iter(sorted({*_own(), *_found()}))

    def __len__(self) -> int:
        """Count them."""
        return len({*_own(), *_found()})


FUNCTIONS = Functions()


def package(name: str) -> str:
    """Tell which package brings a function; empty for an unknown one."""
    if name in _own():
        return DISTRIBUTION
    point = _found().get(name)
    return _package(point) if point else ""


def _own() -> Mapping[str, CheckFunction]:
    """Give the language's own; they are imported when a check is at hand, which few files have."""
    from paddock.pipelines.checking.functions import BUILT_IN

    return BUILT_IN


@cache
def _found() -> dict[str, EntryPoint]:
    """Collect the entry points by name; of two with one name the package first in order is it."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point)))
    return {point.name: point for point in reversed(points)}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


@cache
def _loaded(name: str, point: EntryPoint) -> CheckFunction:
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        raise BrokenCheck(name, _package(point), f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise BrokenCheck(name, _package(point), f"{point.value} is no function")
    return found  # type: ignore[no-any-return]  # what it gives is looked at when it is called
