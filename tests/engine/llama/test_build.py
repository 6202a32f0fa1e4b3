"""Which build of llama.cpp is used: a user's own, ours, or llama-cpp-python's."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from paddock.engine.llama.build import find_build

BINDINGS = version("llama-cpp-python")
VARIANTS = ("libggml-cpu-zen4.so", "libggml-cpu-cannonlake.so", "libggml.so", "libllama.so")


def compiled() -> Path:
    """Return the folder of the libraries that were compiled into llama-cpp-python."""
    spec = find_spec("llama_cpp")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "lib"


def bundle(folder: Path, *, version: str = BINDINGS) -> Path:
    """Install a `paddock-llama` whose libraries are copies of the compiled ones."""
    package = folder / "paddock_llama"
    shutil.copytree(compiled(), package / "lib", symlinks=True)
    (package / "__init__.py").write_text('"""Libraries."""\n')
    info = folder / f"paddock_llama-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: paddock-llama\nVersion: {version}\n"
    )
    return package / "lib"


def libraries(seen: Path, code: str, **environ: str) -> list[Path]:
    """Run code in a new process that sees a folder; gives the libraries of llama.cpp in it."""
    maps = "import re; print(*sorted(set(re.findall(r'/.*lib(?:llama|ggml|mtmd).*', "
    maps += "open('/proc/self/maps').read()))), sep='\\n')"
    kept = {k: v for k, v in os.environ.items() if k not in ("LLAMA_CPP_LIB_PATH", "MTMD_CPP_LIB")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{maps}"],
        env={**kept, "PYTHONPATH": str(seen), **environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines() if line.startswith("/")]


needs_maps = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="this system does not list loaded libraries"
)


@needs_maps
@pytest.mark.parametrize(
    "module",
    sorted(
        file.stem
        for file in (Path(__file__).parents[3] / "engine" / "llama").glob("*.py")
        # These load none.
        if file.stem not in ("__init__", "build", "image_cache", "thread_governor")
    ),
)
def test_every_module_loads_our_libraries_and_no_others(tmp_path: Path, module: str) -> None:
    ours = bundle(tmp_path)
    loaded = libraries(tmp_path, f"import paddock.engine.llama.{module}")
    assert {file.parent for file in loaded} == {ours.resolve()}
    assert ("mtmd" in str(loaded)) == (module == "vision")


@needs_maps
@pytest.mark.parametrize(
    ("version", "has_own", "used"),
    [(None, False, "compiled"), (BINDINGS, True, "own"), ("0.3.1", False, "compiled")],
)
def test_a_users_own_libraries_come_before_ours_and_others_bindings_load_the_compiled_ones(
    tmp_path: Path, version: str | None, has_own: bool, used: str
) -> None:
    if version:
        bundle(tmp_path, version=version)
    (tmp_path / "own").mkdir()
    own = bundle(tmp_path / "own") if has_own else None
    named = {"LLAMA_CPP_LIB_PATH": str(own)} if own else {}
    loaded = libraries(tmp_path, "import paddock.engine.llama.vision", **named)
    expected = own if used == "own" and own else compiled()
    assert {file.parent for file in loaded} == {expected.resolve()}


def test_ours_for_other_bindings_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path, version="0.3.1")
    monkeypatch.syspath_prepend(tmp_path)
    build = find_build({})
    assert (build.origin, build.folder) == ("llama-cpp-python", compiled())
    assert build.mismatch == (
        f"paddock-llama 0.3.1 is for llama-cpp-python 0.3.1, but {BINDINGS} is there"
    )


def test_no_processor_is_taken_for_a_graphics_device(tmp_path: Path) -> None:
    for name in VARIANTS:
        (tmp_path / name).write_bytes(b"x")
    named = {"LLAMA_CPP_LIB_PATH": str(tmp_path)}
    assert find_build(named).backends == ()
    before = find_build(named).fingerprint
    (tmp_path / "libggml-vulkan.so").write_bytes(b"x")
    assert find_build(named).backends == ("vulkan",)
    assert find_build(named).fingerprint != before
