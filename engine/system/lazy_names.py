"""Lazy doors of packages (PEP 562): a name's module is imported when the name is first asked for.

For a package that most commands do not need, though what they import names it.
"""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`; `modules` has the module of each name within it."""

    def find(name: str) -> object:
        if name in modules:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return find
