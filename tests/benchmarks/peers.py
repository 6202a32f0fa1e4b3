"""llama.cpp's own server and batched bench, built from the source that llama-cpp-python brings.

The same source as ours, so a difference is the scheduler's and not the kernels'. Build them once:

    uv run python tests/benchmarks/peers.py

It needs pip (or uv), CMake and a C++ compiler, and takes 10 to 20 minutes on two cores. Binaries
that exist already are used from the folder that `PADDOCK_PEERS` names.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

SOURCE = "llama-cpp-python"
TARGETS = ("llama-server", "llama-batched-bench")
# As llama-cpp-python builds itself: release, for this processor. The rest only saves time.
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DCMAKE_CXX_FLAGS=-fno-dse",  # GCC 12 and AMX, as in pyproject.toml
)


@dataclass(frozen=True, slots=True)
class Peers:
    server: Path
    batched_bench: Path


@dataclass(frozen=True, slots=True)
class Look:
    """What of the peers is here."""

    server: Path | None
    batched_bench: Path | None


class PeersMissing(Exception):
    """The binaries are not there; the message says how to get them."""


def find() -> Peers:
    """Find the binaries in `PADDOCK_PEERS`, else where `build` puts them.

    Raises:
        PeersMissing: with the two ways to get them.
    """
    folder = _folder()
    server, bench = (folder / name for name in TARGETS)
    missing = [path.name for path in (server, bench) if not path.is_file()]
    if missing:
        raise PeersMissing(
            f"{folder} has no {' and no '.join(missing)}. Build them once with "
            f"`uv run python tests/benchmarks/peers.py`, or set PADDOCK_PEERS to the folder "
            f"of binaries that you have."
        )
    return Peers(server, bench)


def look() -> Look:
    """Return which peers are here, whatever is missing."""
    server, bench = (_file(_folder() / name) for name in TARGETS)
    return Look(server, bench)


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _folder() -> Path:
    return Path(os.environ.get("PADDOCK_PEERS") or cache() / "build" / "bin")


def build(n_jobs: int) -> Peers:
    """Download the source by the name of its package, and build the two programs."""
    home = cache()
    source = home / "source"
    if not source.exists():
        _unpack(_download(home / "sdist"), source)
    project = source / "vendor" / "llama.cpp"
    _run("cmake", "-S", str(project), "-B", str(home / "build"), *CMAKE_FLAGS)
    _run("cmake", "--build", str(home / "build"), "-j", str(n_jobs), "--target", *TARGETS)
    return find()


def cache() -> Path:
    """Return where the peers are kept, a folder for each version."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "paddock" / "peers" / _version()


def _version() -> str:
    try:
        return metadata.version(SOURCE)
    except metadata.PackageNotFoundError:
        return "unknown"  # a build that lies on the path without having been installed


def _download(folder: Path) -> Path:
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    elif shutil.which("uv"):
        pip = ["uv", "tool", "run", "pip"]
    else:
        raise PeersMissing("Neither pip nor uv is here to download the source with.")
    wanted = f"{SOURCE}=={metadata.version(SOURCE)}"
    _run(*pip, "download", "--no-deps", "--no-binary", SOURCE, "-d", str(folder), wanted)
    return next(folder.glob("*.tar.gz"))


def _unpack(archive: Path, target: Path) -> None:
    aside = target.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(aside, filter="data")
    next(aside.iterdir()).rename(target)


def _run(*command: str) -> None:
    print("+", " ".join(command), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    print(build(os.cpu_count() or 1))
