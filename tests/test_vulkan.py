"""Paddock on a graphics device that every machine can have: Vulkan on Mesa's lavapipe, with 2 GiB.

Computing there takes seconds for each token, so it is tried only by `poe test-vulkan`, with what
`poe wheels` made. Needs Debian's mesa-vulkan-drivers. The code for it runs on the processor in the
suite, so that a renamed class is noticed without a device.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.workers.death_reasons import WorkerEnd

DIST = Path(os.environ.get("PADDOCK_TEST_VULKAN", ""))
PADDOCK = Path(sys.executable).with_name("paddock")
GIB = 1024**3


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name libraries with Vulkan, and lavapipe, which ggml leaves out unless it is named."""
    if "PADDOCK_TEST_VULKAN" not in os.environ:
        pytest.skip("Vulkan was NOT tried: `poe wheels` builds it, `poe test-vulkan` tries it")
    folder = tmp_path_factory.mktemp("vulkan")
    for pattern in ("paddock_llama-*.whl", "paddock_llama_vulkan-*.whl"):
        found = sorted(DIST.resolve().glob(pattern))
        assert found, f"{DIST.resolve()} has no {pattern}: run `poe wheels` first"
        zipfile.ZipFile(found[-1]).extractall(folder)
    return {
        "LLAMA_CPP_LIB_PATH": str(folder / "paddock_llama" / "lib"),
        "GGML_VK_VISIBLE_DEVICES": "0",
        "PADDOCK_HOME": str(folder / "home"),
        "PADDOCK_LOAD_TIMEOUT": "15m",  # the first decodes are 264 tokens
    }


def called(environ: Mapping[str, str], *command: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "MTMD_CPP_LIB"}
    done = subprocess.run(
        command, env={**kept, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def computed(environ: Mapping[str, str], code: str) -> Any:
    """Run Python in a process that uses Vulkan; gives the JSON of its last line."""
    shown = called(environ, sys.executable, "-P", "-c", f"{_BEFORE}\n{code}")
    return json.loads(shown.splitlines()[-1])


_BEFORE = """
import json
import os
from pathlib import Path
import numpy as np
from paddock.engine.gguf import read_header
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.library import lib, route_llama_log
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.memory.device_memory import Device, GpuMemory, this_device
from paddock.engine.memory.model_layout import LayoutRequest, layouts
from paddock.engine.settings import PoolSettings
home = Path(os.environ["PADDOCK_HOME"])
settings = PoolSettings(models_dir=home / "models", cache_dir=home / "cache", num_parallel=1)
facts = ModelFinder(settings.models_dir, settings.cache_dir).find("smollm2:135m", 8192)
path = Path(facts.path)
"""


def test_doctor_names_the_device_and_its_memory(environ: dict[str, str]) -> None:
    report = called(environ, str(PADDOCK), "doctor")
    assert "built for VULKAN, on this processor as " in report
    assert "llvmpipe" in report
    assert "2.1 GB free of 2.1 GB" in report


def test_without_a_device_the_library_alone_is_no_device(environ: dict[str, str]) -> None:
    hidden = {**environ, "GGML_VK_VISIBLE_DEVICES": ""}
    found = computed(hidden, "print(json.dumps([this_device().is_gpu, this_device().why_no_gpu]))")
    assert found == [False, "ggml_vulkan: Found 0 Vulkan devices"]


def test_layers_lie_on_the_device_and_compute_what_the_processor_does(
    environ: dict[str, str],
) -> None:
    found = computed(environ, _COMPUTE)
    assert found["lines"] == ["offloaded 31/31 layers to GPU", "offloaded 0/31 layers to GPU"]
    assert found["likeness"] > 0.99  # 0.997 measured; 4-bit weights, other order of sums


_COMPUTE = r"""
import re
log = []
note = lib.llama_log_callback(lambda level, text, data: log.append(text.decode(errors="replace")))
lib.llama_log_set(note, None)
rows = []
for n_gpu_layers in (-1, 0):
    model = Model(path, ModelOptions(n_gpu_layers=n_gpu_layers))
    tokens = model.tokenise("The ferry left at nine and", with_special=True, parse_special=False)
    places = np.arange(len(tokens), dtype=np.int32)
    with Context(model, ContextOptions(512, 64, 1, 1)) as context:
        context.decode(tokens, places, places * 0, (places == places[-1]).astype(np.int8))
        rows.append(context.logits(1)[0].astype(float).copy())
    model.close()
one, two = rows
print(json.dumps({
    "lines": re.findall(r"offloaded \d+/\d+ layers to GPU", "".join(log)),
    "likeness": one @ two / np.linalg.norm(one) / np.linalg.norm(two),
}))
"""


def test_memory_that_the_device_lacks_is_a_failed_load_and_the_process_lives(
    environ: dict[str, str],
) -> None:
    reason, n_rows = computed(environ, _TOO_MUCH)
    assert reason.startswith("llama.cpp cannot make a context of 6000000 tokens for 1 sequences: ")
    assert WorkerEnd(reason).ran_out_of_memory(0, 0), reason
    assert n_rows == 1


# A layer's keys for so many tokens are one piece of 2.3 GB.
_TOO_MUCH = """
route_llama_log()
model = Model(path)
try:
    Context(model, ContextOptions(6_000_000, 64, 1, 1))
    reason = ""
except LoadFailed as error:
    reason = str(error)
with Context(model, ContextOptions(512, 64, 1, 1)) as context:
    one = np.ones(1, np.int32)
    n_rows = context.decode(one, one * 0, one * 0, np.ones(1, np.int8))
print(json.dumps([reason, n_rows]))
"""


@pytest.mark.parametrize(
    ("n_ctx_tokens", "fits"), [(8192, True), (131_072, False)], ids=["fits", "is too large"]
)
def test_a_model_is_measured_against_the_devices_memory(
    environ: dict[str, str], n_ctx_tokens: int, fits: bool
) -> None:
    n_bytes, placed, holds = computed(environ, f"n_ctx_tokens = {n_ctx_tokens}\n{_MEASURE}")
    assert placed.startswith("31 of 31 layers on llvmpipe")
    assert (holds, n_bytes <= 2 * GIB) == (fits, fits)


_MEASURE = """
device = this_device()
(way,) = layouts(LayoutRequest(facts, n_ctx_tokens), read_header(path), settings, device)
print(json.dumps([way.room.gpus[0], way.load.placed, device.free.holds(way.room)]))
"""


def test_cells_and_places_fill_the_devices_memory_and_such_a_context_can_be_made(
    environ: dict[str, str],
) -> None:
    n_parallel, n_cells, n_planned, n_rows = computed(environ, _FILL)
    assert (n_parallel, n_rows) == (64, 2)
    assert 40_000 < n_cells < 278_528, "more than 64 short requests, and fewer than the most"
    assert GIB < n_planned <= 1.8 * GIB, "a tenth is left free"


_FILL = """
route_llama_log()
way = layouts(LayoutRequest(facts, 4096), read_header(path), PoolSettings(), this_device())[0]
model = Model(path)
options = ContextOptions(way.load.n_cells, 512, way.load.n_parallel, 1)
with Context(model, options) as context:
    ids = np.arange(2, dtype=np.int32)
    n_rows = context.decode(ids + 1, ids * 0, ids, np.ones(2, np.int8))
print(json.dumps([way.load.n_parallel, way.load.n_cells, way.room.gpus[0], n_rows]))
"""


def test_a_pipeline_runs_on_the_device(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "models: {writer: {ref: smollm2:135m, ctx: 2k, params: {max_tokens: 3}}}\n"
        "steps: [{id: one, uses: chat, with: {model: writer, prompt: Say hello.}}]\n"
        "returns: {n: steps.one.usage.completion_tokens}\n"
    )
    shown = called(environ, str(PADDOCK), "run", "--local", "--json", str(tmp_path / "p.yaml"))
    report = json.loads(shown)
    assert report["status"] == "completed"
    # What the load took is kept under the device's name.
    sizes = Path(environ["PADDOCK_HOME"], "cache", "sizes.json")
    assert "llvmpipe" in sizes.read_text("utf-8")


# Without a device

_A_CARD = """
def this_device():
    card = GpuMemory("a card", 600 << 20, 600 << 20)
    return Device(1, 1 << 40, is_gpu=True, gpus=(card,))
"""


def test_what_is_computed_on_the_device_can_be_computed_on_the_processor(tmp_path: Path) -> None:
    little = _TOO_MUCH.replace("6_000_000", "512")
    measure = f"n_ctx_tokens = 512\n{_MEASURE}"
    parts = (_A_CARD, _COMPUTE, little, measure, _FILL)
    assert computed({"PADDOCK_HOME": str(tmp_path)}, "\n".join(parts))
