"""A card that the driver lists and that llama.cpp cannot use, from the outside.

The management library is `tests/fakes/nvml.c`; the library of the backend is one that needs
another one that is missing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.engine.llama.build import find_build
from tests.fakes.crashing import preloadable

PADDOCK = Path(sys.executable).with_name("paddock")
MISSING = "libcublas.so.13: cannot open shared object file: No such file or directory"
PIPELINE = """
models: {writer: {ref: smollm2:135m, ctx: 1k, params: {max_tokens: 3}}}
steps: [{id: one, uses: chat, with: {model: writer, prompt: Say hello.}}]
"""


def compiled(library: Path, *needs: str) -> None:
    names = (f"-Wl,-soname,{library.name}", "-Wl,--no-as-needed")
    command = [
        "cc",
        "-shared",
        "-o",
        str(library),
        *names,
        "-x",
        "c",
        "/dev/null",
        "-x",
        "none",
        *needs,
    ]
    subprocess.run(command, check=True)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Name our own libraries beside one of CUDA that cannot be loaded, and a driver with a card."""
    folder, driver = tmp_path / "llama", tmp_path / "driver"
    for made in (folder, driver):
        made.mkdir()
    for file in find_build().files:
        (folder / file.name).symlink_to(file)
    compiled(driver / "libcublas.so.13")
    compiled(folder / "libggml-cuda.so", str(driver / "libcublas.so.13"))
    (driver / "libcublas.so.13").unlink()
    Path(preloadable(driver, "nvml")).rename(driver / "libnvidia-ml.so.1")
    kept = {name: os.environ[name] for name in os.environ.keys() - {"CUDA_VISIBLE_DEVICES"}}
    ours = {
        "LLAMA_CPP_LIB_PATH": str(folder),
        "LD_LIBRARY_PATH": str(driver),
        "PADDOCK_HOME": str(tmp_path / "home"),
        "PADDOCK_PROFILE_S": "0",
    }
    return {**kept, **ours}


def shown(environ: dict[str, str], *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [PADDOCK, *words], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if "--json" in words else done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="libraries of Linux")
def test_every_command_tells_the_systems_own_reason_and_computes_on_the_processor(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE, "utf-8")
    run = shown(environ, "run", "--local", str(tmp_path / "p.yaml"))
    assert f"smollm2:135m runs on the processor: cuda: {MISSING}" in run
    proposed = json.loads(shown(environ, "models", "--json"))
    assert (proposed["is_gpu"], proposed["why_no_device"]) == (False, f"cuda: {MISSING}")
    doctor = {
        (row["about"], row["level"]): row["text"]
        for row in json.loads(shown(environ, "doctor", "--json"))["findings"]
    }
    assert doctor["graphics", "warning"].startswith("NVIDIA H100, 85.9 GB")
    assert MISSING in doctor["graphics", "warning"]


@pytest.mark.skipif(sys.platform != "linux", reason="libraries of Linux")
def test_where_llama_cpp_itself_needs_the_missing_library_no_model_is_blamed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE, "utf-8")
    folder = Path(environ["LLAMA_CPP_LIB_PATH"])
    (folder / "libllama.so").unlink()
    (folder / "libggml-cuda.so").rename(folder / "libllama.so")
    (folder / "libggml-cuda.so").touch()
    run = shown(environ, "run", "--local", str(tmp_path / "p.yaml"), status=1)
    assert "model 'smollm2:135m' cannot be used on this machine" in run
    assert MISSING in run
    assert "-DGGML_CUDA=on" in run, "it stays a build for the card"
