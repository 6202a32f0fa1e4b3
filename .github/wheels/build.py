"""Build `paddock-llama`, its backends, and llama-cpp-python's Python part as wheels.

    python .github/wheels/build.py                     # what this machine can build
    python .github/wheels/build.py libraries cuda12    # these, or fail
    python .github/wheels/build.py page URL            # what --find-links reads, for dist/
    python .github/wheels/build.py formula REPOSITORY URL PAGE     # Homebrew's, for dist/

The source is llama-cpp-python's sdist, of the version that pyproject.toml names as the oldest: so
libraries and bindings are always of one piece. Needs CMake, Ninja and a C++ compiler; Vulkan needs
glslc and new headers, CUDA its toolkit.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import amx
import packing

ROOT = Path(__file__).resolve().parents[2]
SDIST_SHA256 = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}

MACOS = "14.0"  # the oldest that our libraries run on

# Python's part of llama-cpp-python alone: pip prefers it to the sdist of the same version.
NO_LIBRARIES = "+nolibs"

_ALWAYS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",  # a wheel holds no links, and each library once
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_NUMBER=0",  # else the number of commits around the build folder
    "-DLLAMA_BUILD_COMMIT=unknown",
)
_LEAST_VULKAN = (1, 3, 272)  # has VK_EXT_layer_settings


@dataclass(frozen=True, slots=True)
class Backend:
    """A graphics backend in a wheel of its own."""

    distribution: str
    target: str
    options: tuple[str, ...]
    requires: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    """Libraries that come with the vendor's driver, or with what is required."""
    runpath: tuple[str, ...] = ()
    """Where packages that are required have libraries."""


# Turing to Blackwell; the last one also as PTX for what comes after.
_CUDA = "-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real;86-real;89-real;90-real;120"
BACKENDS: Mapping[str, Backend] = {
    "vulkan": Backend(
        "paddock-llama-vulkan", "ggml-vulkan", ("-DGGML_VULKAN=ON",), drivers=("libvulkan.so.1",)
    ),
    "cuda12": Backend(
        "paddock-llama-cuda",
        "ggml-cuda",
        _CUDA,
        ("nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12"),
        ("libcuda.so.1", "libcudart.so.12", "libcublas.so.12"),
        ("nvidia/cublas/lib", "nvidia/cuda_runtime/lib"),
    ),
    "cuda13": Backend(
        "paddock-llama-cuda13",
        "ggml-cuda",
        _CUDA,
        ("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13,<14"),
        ("libcuda.so.1", "libcudart.so.13", "libcublas.so.13"),
        ("nvidia/cu13/lib",),
    ),
}
# An extra of `paddock-llama`, and what it brings.
EXTRAS = {
    "vulkan": BACKENDS["vulkan"].distribution,
    "cuda": BACKENDS["cuda12"].distribution,
    "cuda13": BACKENDS["cuda13"].distribution,
}


class CannotBuild(Exception):
    """Something that a wheel needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where things are built, and of what."""

    work: Path
    dist: Path
    version: str
    vulkan_headers: Path | None = None

    @property
    def sdist(self) -> Path:
        """Where the sdist is unpacked."""
        return self.work / "src"

    @property
    def llama(self) -> Path:
        """llama.cpp as llama-cpp-python brings it."""
        return self.sdist / "vendor" / "llama.cpp"


def main() -> None:
    """Build what the command line names."""
    args = _arguments()
    if args.wheels[:1] == ["page"]:
        _write_page(args.out, args.wheels[1])
        return
    if args.wheels[:1] == ["formula"]:
        _write_formula(args.out, *args.wheels[1:])
        return
    shop = Workshop(args.work.resolve(), args.out.resolve(), oldest_bindings(), args.vulkan_headers)
    _bring_source(shop)
    builds: dict[str, Callable[[], packing.Wheel]] = {
        "python": lambda: bindings_alone(shop),
        "libraries": lambda: libraries(shop),
        **{name: lambda name=name: backend(shop, name) for name in BACKENDS},  # type: ignore[misc]
    }
    for name in args.wheels or ("python", "libraries", "vulkan"):
        try:
            print(packing.write(builds[name](), shop.dist), flush=True)
        except CannotBuild as why:
            if args.wheels:
                raise SystemExit(f"{name}: {why}") from None
            print(f"{name}: NOT BUILT: {why}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "wheels",
        nargs="*",
        help=f"python, libraries, {', '.join(BACKENDS)}, page URL, or formula …",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--vulkan-headers", type=Path, help="a folder with vulkan/ in it")
    return parser.parse_args()


def oldest_bindings() -> str:
    """Return the version of llama-cpp-python from which pyproject.toml asks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = re.search(r"llama-cpp-python>=([\d.]+)", " ".join(project["dependencies"]))
    assert found, "pyproject.toml names no llama-cpp-python"
    return found.group(1)


# The source


def _bring_source(shop: Workshop) -> None:
    """Download the sdist and unpack it, unless that was done."""
    if shop.llama.is_dir():
        return
    downloads = shop.work / "sdist"
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
        "--no-binary", "llama-cpp-python", "--dest", str(downloads),
        f"llama-cpp-python=={shop.version}",
    )  # fmt: skip
    archive = next(downloads.glob("*.tar.gz"))
    known, found = SDIST_SHA256.get(shop.version), hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != known:
        raise SystemExit(f"{archive.name} has sha256 {found}, but SDIST_SHA256 names {known}")
    with tarfile.open(archive) as packed:
        packed.extractall(shop.work, filter="data")
    (shop.work / archive.name.removesuffix(".tar.gz")).rename(shop.sdist)


# The wheels


def bindings_alone(shop: Workshop) -> packing.Wheel:
    """Return llama-cpp-python's Python part, which needs `paddock-llama` and no compiler."""
    package = shop.sdist / "llama_cpp"
    files = {
        f"llama_cpp/{path.relative_to(package).as_posix()}": path
        for path in package.rglob("*")
        if path.is_file() and not {"lib", "__pycache__"} & {*path.relative_to(package).parts}
    }
    version = f"{shop.version}{NO_LIBRARIES}"
    told = (shop.sdist / "PKG-INFO").read_text("utf-8")
    told = re.sub(r"^Version: .*$", f"Version: {version}", told, count=1, flags=re.MULTILINE)
    ours = f"Requires-Dist: paddock-llama=={shop.version}.*\n"
    told = told.replace("Requires-Dist: ", f"{ours}Requires-Dist: ", 1)
    return packing.Wheel(
        "llama-cpp-python", version, "py3-none-any", "", "MIT",
        {"LICENSE.md": (shop.sdist / "LICENSE.md").read_bytes()}, files, metadata=told,
    )  # fmt: skip


def libraries(shop: Workshop) -> packing.Wheel:
    """Return llama.cpp's libraries with one for each kind of processor."""
    options = ["-DGGML_CPU_ALL_VARIANTS=ON"]
    if sys.platform == "darwin":
        options += ["-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON"]
    if sys.platform == "win32":
        options.append("-DGGML_OPENMP=OFF")
    build = _configured(shop, "libraries", options)
    _make(build, ["llama", "mtmd", *_targets(build, "ggml-cpu-"), *_targets(build, "ggml-metal")])
    found = {path.name: path for path in sorted((build / "bin").iterdir()) if _is_library(path)}
    found = {name: path for name, path in found.items() if "llama-common" not in name}
    licences = _licences(shop)
    if sys.platform == "linux":
        found |= _openmp(found, licences)
        if "libggml-cpu-sapphirerapids.so" in found:
            _check_tiles(found["libggml-cpu-sapphirerapids.so"])
    files: dict[str, bytes | Path] = {
        "paddock_llama/__init__.py": b'"""llama.cpp\'s libraries, under `lib`, for Paddock."""\n',
        **{f"paddock_llama/lib/{name}": path for name, path in found.items()},
    }
    licence = "MIT AND GPL-3.0-or-later WITH GCC-exception-3.1"
    return packing.Wheel(
        "paddock-llama", shop.version, _tag(found), "llama.cpp's libraries for every processor",
        licence if "GCC-RUNTIME.txt" in licences else "MIT", licences, files,
        requires=(f"llama-cpp-python=={shop.version}",),
        extras={extra: f"{name}=={shop.version}" for extra, name in EXTRAS.items()},
    )  # fmt: skip


def backend(shop: Workshop, name: str) -> packing.Wheel:
    """Return one graphics backend, which lands in the folder of `paddock-llama`.

    Raises:
        CannotBuild: its tools are not here.
    """
    wanted = BACKENDS[name]
    options = [*wanted.options, "-DGGML_CPU=OFF"]
    if name == "vulkan":
        options += _vulkan(shop.vulkan_headers)
    elif not shutil.which("nvcc"):
        raise CannotBuild("nvcc of NVIDIA's toolkit is not on the PATH")
    build = _configured(shop, name, options, runpath=wanted.runpath)
    _make(build, [wanted.target])
    library = next(p for p in (build / "bin").iterdir() if wanted.target in p.name)
    allowed = (*wanted.drivers, "libggml-base.so", "libggml.so")
    return packing.Wheel(
        wanted.distribution, shop.version, _tag({library.name: library}, allowed),
        f"llama.cpp's {wanted.target} library for paddock-llama", "MIT", _licences(shop),
        {f"paddock_llama/lib/{library.name}": library},
        requires=(f"paddock-llama=={shop.version}", *wanted.requires),
    )  # fmt: skip


# Compiling


def run(*command: str, **environ: str) -> None:
    """Run a command; its output is ours."""
    subprocess.run(command, check=True, env={**os.environ, **environ})


def _configured(
    shop: Workshop, name: str, options: Sequence[str], runpath: Sequence[str] = ()
) -> Path:
    """Configure a build folder; returns it."""
    build = shop.work / f"build-{name}"
    origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    # From paddock_llama/lib to site-packages are two steps.
    places = [origin, *(f"{origin}/../../{place}" for place in runpath)]
    run(
        "cmake", "-G", "Ninja", "-S", str(shop.llama), "-B", str(build),
        *_ALWAYS, f"-DCMAKE_INSTALL_RPATH={';'.join(places)}", *_compiler_flags(shop), *options,
        # No repository around the build folder is llama.cpp's.
        GIT_CEILING_DIRECTORIES=str(shop.llama.parent),
    )  # fmt: skip
    return build


def _compiler_flags(shop: Workshop) -> list[str]:
    if sys.platform == "win32":
        return []
    flags = f"-ffile-prefix-map={shop.llama}=llama.cpp"
    more: tuple[str, ...] = (f"-DCMAKE_OSX_DEPLOYMENT_TARGET={MACOS}",)
    if sys.platform == "linux":
        flags = f"-fno-dse {flags}"  # GCC drops stores that configure AMX tiles: see amx.py
        more = "-DCMAKE_SHARED_LINKER_FLAGS=-s", "-DCMAKE_MODULE_LINKER_FLAGS=-s"
    return [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}", *more]


def _targets(build: Path, prefix: str) -> list[str]:
    shown = subprocess.run(
        ["ninja", "-C", str(build), "-t", "targets", "all"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    names = re.findall(rf"^({re.escape(prefix)}\w*): phony$", shown, re.MULTILINE)
    return sorted(names)


def _make(build: Path, targets: Sequence[str]) -> None:
    run("cmake", "--build", str(build), "--config", "Release", "--target", *targets)


def _is_library(path: Path) -> bool:
    return path.suffix in (".so", ".dylib", ".dll") and not path.is_symlink()


def _check_tiles(library: Path) -> None:
    missing = amx.missing_bytes(amx.disassembly(library))
    if not missing or any(missing):
        raise SystemExit(
            f"{library.name}: bytes of AMX's tile configuration never stored: {missing}"
        )


def _vulkan(headers: Path | None) -> list[str]:
    """Return the options for Vulkan.

    Raises:
        CannotBuild: no compiler for shaders, or headers that are too old.
    """
    if not shutil.which("glslc"):
        raise CannotBuild("glslc, which compiles its shaders, is not on the PATH")
    folder = headers or Path(os.environ.get("VULKAN_SDK", "/usr")) / "include"
    header = folder / "vulkan" / "vulkan_core.h"
    found = vulkan_version(header.read_text("utf-8")) if header.is_file() else None
    if found is None or found < _LEAST_VULKAN:
        least, told = ".".join(map(str, _LEAST_VULKAN)), ".".join(map(str, found or ("none",)))
        raise CannotBuild(
            f"Vulkan's headers from {least} are needed, and {folder} has {told}; "
            "--vulkan-headers names a folder with newer ones"
        )
    return [f"-DVulkan_INCLUDE_DIR={folder}"] if headers else []


def vulkan_version(header: str) -> tuple[int, ...] | None:
    """Return the version that `vulkan_core.h` states."""
    patch = re.search(r"#define VK_HEADER_VERSION (\d+)", header)
    complete = re.search(
        r"VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(0, (\d+), (\d+),", header
    )
    return (int(complete[1]), int(complete[2]), int(patch[1])) if patch and complete else None


# Systems and licences


def _tag(found: Mapping[str, Path], allowed: Sequence[str] = ()) -> str:
    """Return for which systems libraries are, from what they ask for.

    Raises:
        SystemExit: one asks for a library that not every such system has.
    """
    if sys.platform == "darwin":
        return f"py3-none-macosx_{MACOS.replace('.', '_')}_{platform.machine()}"
    if sys.platform == "win32":
        return f"py3-none-{sysconfig.get_platform().replace('-', '_')}"
    sections = {name: packing.dynamic_section(path) for name, path in found.items()}
    if missing := packing.strangers(sections, allowed):
        raise SystemExit("not every Linux has it: " + "; ".join(missing))
    return f"py3-none-manylinux_2_{packing.least_glibc(sections.values())}_{platform.machine()}"


def _openmp(found: Mapping[str, Path], licences: dict[str, bytes]) -> dict[str, Path]:
    """Return GCC's OpenMP library, which small images lack; adds its licence."""
    shown = subprocess.run(
        ["ldd", str(found["libggml-base.so"])], capture_output=True, text=True, check=True
    ).stdout
    where = re.search(r"libgomp\.so\.1 => (\S+)", shown)
    if not where:
        return {}
    places = ("doc/libgomp1/copyright", "licenses/libgcc/COPYING.RUNTIME")
    texts = [Path("/usr/share", place) for place in places]
    text = next((text for text in texts if text.is_file()), None)
    if text is None:
        raise SystemExit(f"libgomp's licence is not at {' or '.join(map(str, texts))}")
    licences["GCC-RUNTIME.txt"] = text.read_bytes()
    return {"libgomp.so.1": Path(where[1]).resolve()}


def _licences(shop: Workshop) -> dict[str, bytes]:
    """Return the licences of llama.cpp and of what its libraries contain."""
    texts = [shop.llama / "LICENSE", *sorted((shop.llama / "licenses").iterdir())]
    return {
        f"llama.cpp-{text.name}" if text.name == "LICENSE" else text.name: text.read_bytes()
        for text in texts
    }


# The page for --find-links


def page(wheels: Mapping[str, str], url: str) -> str:
    """Return a page with a link to each wheel (name -> sha256) below an address.

    >>> print(page({"a-1+x-py3-none-any.whl": "ab"}, "https://example.org/v1"), end="")
    <!doctype html><title>Paddock's wheels</title>
    <a href="https://example.org/v1/a-1%2Bx-py3-none-any.whl#sha256=ab">a-1+x-py3-none-any.whl</a><br>
    """
    lines = [
        f'<a href="{html.escape(url)}/{quote(name)}#sha256={digest}">{html.escape(name)}</a><br>\n'
        for name, digest in sorted(wheels.items())
    ]
    return "".join(["<!doctype html><title>Paddock's wheels</title>\n", *lines])


def _write_page(folder: Path, url: str) -> None:
    wheels = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.whl")
    }
    (folder / "index.html").write_text(page(wheels, url), "utf-8")


def formula(repository: str, url: str, page_url: str, digest: str) -> str:
    """Return a Homebrew formula that installs a release's wheels into an environment of their own.

    `url` is that of our wheel, whose name has the version; `page_url` lists the others.

    >>> text = formula("https://h/o", "https://h/paddock_llm-1.2-py3.whl", "https://p", "ab")
    >>> [line.strip() for line in text.splitlines() if line.startswith(("  url", "  version"))]
    ['url "https://h/paddock_llm-1.2-py3.whl"', 'version "1.2"']
    """
    version = url.rpartition("/")[2].split("-")[1]
    return f'''\
class Paddock < Formula
  desc "Pipelines of local language models over folders of documents"
  homepage "{repository}"
  url "{url}"
  version "{version}"
  sha256 "{digest}"
  license "Apache-2.0"
  depends_on "python@3.12"

  def install
    system "python3.12", "-m", "venv", libexec
    system libexec/"bin/python", "-m", "pip", "install", "--find-links", "{page_url}",
           "paddock-llm[demo]=={version}", "paddock-llama"
    bin.install_symlink libexec/"bin/paddock"
  end

  test do
    system bin/"paddock", "doctor"
  end
end
'''


def _write_formula(folder: Path, repository: str, url: str, page_url: str) -> None:
    (ours,) = folder.glob("paddock_llm-*.whl")
    digest = hashlib.sha256(ours.read_bytes()).hexdigest()
    text = formula(repository, f"{url}/{quote(ours.name)}", page_url, digest)
    (folder / "paddock.rb").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
