"""Find the build of llama.cpp that is used, without importing llama_cpp.

There are three places for its libraries. LLAMA_CPP_LIB_PATH wins, since a user set it. Then comes
the distribution `paddock-llama`, which has one library for each kind of processor and chooses at
run time. The last is what pip compiled into llama-cpp-python. `paddock-llama` is only used with
the version of llama-cpp-python that it was built from: Python's bindings hold the layout of C
structs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

BuildOrigin = Literal["paddock-llama", "llama-cpp-python", "LLAMA_CPP_LIB_PATH"]

# Libraries of a build for a graphics device lie beside libggml under these names.
GPU_BACKENDS = ("cuda", "hip", "metal", "vulkan", "sycl", "musa", "cann")


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """A build of llama.cpp, as its files say."""

    origin: BuildOrigin
    folder: Path
    """Where its libraries are."""
    bindings: str
    """The version of llama-cpp-python; "not installed" without one."""
    version: str = ""
    """Of `paddock-llama`, where that is used."""
    mismatch: str = ""
    """Why `paddock-llama` is installed, but not used."""

    @property
    def name(self) -> str:
        """Return what a user installed, with its version."""
        if self.origin == "paddock-llama":
            return f"paddock-llama {self.version}"
        if self.origin == "LLAMA_CPP_LIB_PATH":
            return f"llama-cpp-python {self.bindings} with libraries of {self.folder}"
        return f"llama-cpp-python {self.bindings}"

    @property
    def has_libraries(self) -> bool:
        """Whether llama.cpp itself is there: Python's bindings can be installed alone."""
        return any(re.match(r"(lib)?llama\.(so|dylib|dll)$", file.name) for file in self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the libraries, sorted by name."""
        kinds = re.compile(r"\.(so|dylib|dll)(\.[\d.]+)?$")
        try:
            return tuple(sorted(file for file in self.folder.iterdir() if kinds.search(file.name)))
        except OSError:
            return ()

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the graphics backends that have a library; none: for the processor only.

        It reads names of files: importing llama_cpp is slow, and a build that sees no device says
        of itself that it supports none.
        """
        names = [file.name for file in self.files]
        return tuple(
            backend
            for backend in GPU_BACKENDS
            if any(re.match(rf"(lib)?ggml-{backend}[-.]", name) for name in names)
        )

    @property
    def fingerprint(self) -> str:
        """Return a name that differs between builds of the same version, too.

        Another flag of the compiler may leave a library's size as it was, so its time counts.
        """
        sizes = [
            (file.name, file.stat().st_size, int(file.stat().st_mtime))
            for file in self.files
            if "ggml" in file.name and not file.is_symlink()
        ]
        return f"{self.name} {hashlib.sha256(repr(sizes).encode()).hexdigest()[:8]}"


def find_build(environ: Mapping[str, str] | None = None) -> LlamaBuild:
    """Return the build that this process, or one with this environment, uses."""
    environ = os.environ if environ is None else environ
    bindings = _version("llama-cpp-python") or "not installed"
    ours, mismatch = _bundled_build(bindings)
    named = environ.get("LLAMA_CPP_LIB_PATH")
    # A parent process of ours may have set the variable to our own folder.
    if named and not (ours and Path(named) == ours.folder):
        return LlamaBuild("LLAMA_CPP_LIB_PATH", Path(named), bindings, mismatch=mismatch)
    if ours:
        return ours
    folder = (_package_folder("llama_cpp") or Path()) / "lib"
    return LlamaBuild("llama-cpp-python", folder, bindings, mismatch=mismatch)


def _bundled_build(bindings: str) -> tuple[LlamaBuild | None, str]:
    """Return the build in `paddock-llama`, or the reason why it does not fit."""
    package = _package_folder("paddock_llama")
    own = _version("paddock-llama")
    if package is None or own is None:
        return None, ""
    if release_version(own) != release_version(bindings):
        why = f"paddock-llama {own} is for llama-cpp-python {release_version(own)}, but {bindings} is there"
        return None, why
    return LlamaBuild("paddock-llama", package / "lib", bindings, version=own), ""


def release_version(version: str) -> str:
    """Return a version without what follows its numbers.

    >>> release_version("0.3.36.post1"), release_version("0.3.36+nolibs"), release_version("0.3.36")
    ('0.3.36', '0.3.36', '0.3.36')
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return found.group() if found else version


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None
