"""Readers that other packages bring, found by their entry points. Imports one when it is used."""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from .reader import Reader, Unreadable

GROUP = "paddock.readers"


class BrokenReader(Unreadable):
    """An installed reader that cannot be used."""

    def __init__(self, name: str, why: str, *, is_missing: bool = False) -> None:
        self.package = package(name)
        self.is_missing = is_missing
        """Whether a module that it imports is not installed."""
        super().__init__(
            f"cannot be read: reader '{name}' of package '{self.package}' cannot be used: {why}",
            f"Update or remove '{self.package}'.",
        )


@cache
def _found() -> dict[str, EntryPoint]:
    """Collect the entry points by name; of two with one name the package first in order is it."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point)))
    return {point.name: point for point in reversed(points)}


def names() -> tuple[str, ...]:
    """Give the kinds that plug-ins read, sorted; imports none of them."""
    return tuple(sorted(_found()))


def package(name: str) -> str:
    """Tell which package brings a reader; empty for an unknown one."""
    point = _found().get(name)
    return _package(point) if point else ""


@cache
def load(name: str) -> type[Reader]:
    """Import one reader.

    Raises:
        BrokenReader: with the package and the reason.
    """
    try:
        kind = _found()[name].load()
    except (Exception, SystemExit) as error:  # an import may raise anything; it is told
        is_missing = isinstance(error, ModuleNotFoundError)
        why = f"{type(error).__name__}: {error}"
        raise BrokenReader(name, why, is_missing=is_missing) from error
    fault = _fault(kind)
    if fault:
        raise BrokenReader(name, f"{_found()[name].value} {fault}")
    return kind  # type: ignore[no-any-return]  # `_fault` has looked at its shape


def by_suffix(suffix: str) -> str:
    """Tell which plug-in reads files that end so; empty if none does.

    One that cannot be imported claims nothing.
    """
    for name in names():
        try:
            if suffix in load(name).suffixes:
                return name
        except BrokenReader:
            continue
    return ""


def versions() -> tuple[str, ...]:
    """Name what is installed and in which version; a broken one counts as it stands."""
    found = []
    for name in names():
        try:
            found.append(f"{name} {load(name).version}")
        except BrokenReader:
            found.append(f"{name} broken")
    return tuple(found)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def _fault(kind: object) -> str:
    """Say what keeps `kind` from being a reader, in words that follow its name."""
    if not inspect.isclass(kind):
        return "is not a class"
    suffixes = getattr(kind, "suffixes", None)
    if not isinstance(suffixes, tuple) or not all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower()
        for suffix in suffixes
    ):
        return "has no `suffixes` that is a tuple of texts such as '.odt'"
    missing = [word for word in ("media_type", "version") if not hasattr(kind, word)]
    missing += [] if callable(getattr(kind, "read", None)) else ["read"]
    return f"lacks {', '.join(f'`{word}`' for word in missing)}" if missing else ""
