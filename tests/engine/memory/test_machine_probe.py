"""This machine and the real small model, as the actor is told of them."""

from pathlib import Path

from paddock.engine.memory.machine_probe import MachineProbe
from paddock.engine.memory.model_layout import LayoutRequest
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import IMAGE_BYTES, WorkerMemory
from tests.fakes.adapter import write_adapter
from tests.fakes.eyes import llava


async def test_a_size_that_was_measured_is_used_by_the_next_pool(tmp_path: Path) -> None:
    settings = PoolSettings(n_threads=1, cache_dir=tmp_path / "cache", n_gpu_layers=0)
    facts = ModelFinder(tmp_path, tmp_path / "cache").find("smollm2:135m")
    request = LayoutRequest(facts, 2048)

    survey = MachineProbe(settings)
    device = await survey.probe_device()
    first = (await survey.layouts(request, device))[0]
    assert first.room.host > facts.size_bytes
    survey.learn(request, first.load, WorkerMemory(234_567_890), load_s=1.5)
    again = (await MachineProbe(settings).layouts(request, device))[0]
    assert (again.room.host, again.load_s) == (234_567_890, 1.5)
    (_, *others) = await survey.layouts(request, device)
    assert others[0].room.host != 234_567_890, "a size belongs to its layout"


async def test_what_is_loaded_next_to_a_model_counts(tmp_path: Path) -> None:
    settings = PoolSettings(cache_dir=tmp_path / "cache", n_gpu_layers=0)
    facts = ModelFinder(tmp_path, tmp_path / "cache").find("smollm2:135m")
    adapter = write_adapter(tmp_path / "lora.gguf", "blk.0.ffn_up.weight", 576, 1536, strength=1)

    survey = MachineProbe(settings)
    device = await survey.probe_device()
    plain = (await survey.layouts(LayoutRequest(facts, 2048), device))[0]
    laid = (await survey.layouts(LayoutRequest(facts, 2048, (str(adapter),)), device))[0]
    assert laid.room.host - plain.room.host == adapter.stat().st_size
    projector = llava(tmp_path / "mmproj.gguf")
    seeing = replace(facts, projector=str(projector))
    laid = (await survey.layouts(LayoutRequest(seeing, 2048), device))[0]
    assert laid.room.host - plain.room.host == projector.stat().st_size + IMAGE_BYTES
    drafted = replace(facts, draft_path=facts.path)
    with_draft = (await survey.layouts(LayoutRequest(drafted, 2048), device))[0]
    cells = plain.load.n_cells * 30 * 3 * 128 * 2
    assert with_draft.room.host - plain.room.host > facts.size_bytes + cells
