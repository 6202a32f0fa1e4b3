"""Find the build of llama.cpp that is used, without importing llama_cpp.

Its libraries come from LLAMA_CPP_LIB_PATH if a user has set it, else from the distribution
`paddock-llama`, which has one library for each kind of processor and chooses at run time, else from
llama-cpp-python itself. `paddock-llama` is only used with the version of llama-cpp-python that it
was built from, since Python's bindings contain the layout of C structs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from paddock.engine.system.records import Struct

# Libraries of a build for a graphics device lie beside libggml under these names.
GPU_BACKENDS = ("cuda", "hip", "metal", "vulkan", "sycl", "musa", "cann")


class LlamaBuild(Struct, frozen=True):
    origin: Literal["paddock-llama", "llama-cpp-python", "LLAMA_CPP_LIB_PATH"]
    folder: Path
    bindings: str
    """The version of llama-cpp-python, or "not installed"."""
    version: str = ""
    mismatch: str = ""

    @property
    def name(self) -> str:
        if self.origin == "paddock-llama":
            return f"paddock-llama {self.version}"
        if self.origin == "LLAMA_CPP_LIB_PATH":
            return f"llama-cpp-python {self.bindings} with libraries of {self.folder}"
        return f"llama-cpp-python {self.bindings}"

    @property
    def has_libraries(self) -> bool:
        """Whether llama.cpp itself is present: Python's bindings can be installed alone."""
        return any(re.match(r"(lib)?llama\.(so|dylib|dll)$", file.name) for file in self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        kinds = re.compile(r"\.(so|dylib|dll)(\.[\d.]+)?$")
        try:
            return tuple(sorted(file for file in self.folder.iterdir() if kinds.search(file.name)))
        except OSError:
            return ()

    @property
    def backends(self) -> tuple[str, ...]:
        """The graphics backends that have a library; none in a build for the processor.

        Found by file names: importing llama_cpp is slow, and a build that sees no device reports
        that it supports none.
        """
        names = [file.name for file in self.files]
        return tuple(
            backend
            for backend in GPU_BACKENDS
            if any(re.match(rf"(lib)?ggml-{backend}[-.]", name) for name in names)
        )

    @property
    def fingerprint(self) -> str:
        """A name that also differs between builds of the same version.

        Other compiler flags may leave a library's size unchanged, so its time counts too.
        """
        sizes = [
            (file.name, file.stat().st_size, int(file.stat().st_mtime))
            for file in self.files
            if "ggml" in file.name and not file.is_symlink()
        ]
        return f"{self.name} {hashlib.sha256(repr(sizes).encode()).hexdigest()[:8]}"


def find_build(environ: Mapping[str, str] = os.environ) -> LlamaBuild:
    bindings = _version("llama-cpp-python") or "not installed"
    bundled, mismatch = _bundled_build(bindings)
    named = environ.get("LLAMA_CPP_LIB_PATH")
    # A parent process may have set the variable to the bundled build's own folder.
    if named and not (bundled and Path(named) == bundled.folder):
        return LlamaBuild("LLAMA_CPP_LIB_PATH", Path(named), bindings, mismatch=mismatch)
    if bundled:
        return bundled
    folder = (_package_folder("llama_cpp") or Path()) / "lib"
    return LlamaBuild("llama-cpp-python", folder, bindings, mismatch=mismatch)


def _bundled_build(bindings: str) -> tuple[LlamaBuild | None, str]:
    package = _package_folder("paddock_llama")
    own = _version("paddock-llama")
    if package is None or own is None:
        return None, ""
    if release_version(own) != release_version(bindings):
        needed = f"llama-cpp-python {release_version(own)}"
        return None, f"paddock-llama {own} is for {needed}, but {bindings} is there"
    return LlamaBuild("paddock-llama", package / "lib", bindings, version=own), ""


def release_version(version: str) -> str:
    """Return the numbers of a version, without any suffix.

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
