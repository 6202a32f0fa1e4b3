"""Both engines' contexts pass one table of cases; an IR computes the weights of its file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.llama.forward_context import ChatModel, ForwardContext
from paddock.engine.llama.library import CacheFull, LoadFailed, route_llama_log
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.llama.quantise import quantise
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.openvino.ir_model import IrModel
from paddock.engine.openvino.ir_writer import computes_bf16, write_in_bf16, write_ir
from paddock.engine.openvino.paged_context import PagedContext
from paddock.engine.tuning.tuned_copies import graph_file
from tests.engine.decoding.test_loop import NEWS, Bench, closed, job
from tests.fakes import tiny

__all__ = ["closed"]

# Activations are rounded to 8 bits by both, otherwise in each batch: of 49,152 logits the largest
# difference between two orders of one computation was 0.5.
NEAR = 1.0


# A text that stands there thrice goes on as before, whatever the rounding
SURE = tuple(f"{NEWS}\n{NEWS}\n{NEWS}\n{NEWS[:n_letters]}" for n_letters in (40, 60, 80))


def written_ir(file: Path, folder: Path) -> Path:
    weights = folder / "weights.bin"
    write_ir(file, weights, graph_file(weights), 2)
    return weights


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    route_llama_log()
    folder = tmp_path_factory.mktemp("models")
    return ModelFinder(folder, folder).locate("smollm2:135m").path


@pytest.fixture(scope="module")
def ir(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_ir(bundled, tmp_path_factory.mktemp("ir"))


@pytest.fixture(scope="module")
def by_llama(bundled: Path) -> Iterator[Model]:
    with closing(Model(bundled, ModelOptions(n_gpu_layers=0))) as model:
        yield model


@pytest.fixture(scope="module")
def by_openvino(bundled: Path, ir: Path) -> Iterator[IrModel]:
    with closing(IrModel(bundled, ir, 2)) as model:
        yield model


@pytest.fixture(scope="module", params=["llama.cpp", "OpenVINO", "OpenVINO in BF16"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChatModel[Any]]:
    """A small model, of which every token of a text decides what follows."""
    route_llama_log()
    folder = tmp_path_factory.mktemp("small")
    file = folder / "copying.gguf"
    quantise(tiny.copying(folder / "floats.gguf"), file, "F16", 1)
    made: ChatModel[Any]
    if request.param == "llama.cpp":
        made = Model(file, ModelOptions(n_gpu_layers=0))
    else:
        weights = written_ir(file, folder)
        if request.param == "OpenVINO in BF16":
            if not computes_bf16():
                pytest.skip("BF16 was NOT tried: this processor does not multiply it")
            write_in_bf16(weights, weights := folder / "bf16.bin")
        made = IrModel(file, weights, 2)
    with closing(made):
        yield made


def tokens_of(model: Vocabulary) -> Tokens:
    return model.tokenise(f"{NEWS} {NEWS} {NEWS}", with_special=True, parse_special=False)[:140]


@pytest.fixture
def text(model: Vocabulary) -> Tokens:
    return tokens_of(model)


@pytest.fixture
def make(model: ChatModel[Any]) -> Iterator[Callable[..., ForwardContext[Any]]]:
    opened: list[ForwardContext[Any]] = []

    def context(n_cells: int = 1024, n_seq: int = 4) -> ForwardContext[Any]:
        opened.append(model.open_context(ContextOptions(n_cells, 512, n_seq, 2)))
        return opened[-1]

    yield context
    for each in opened:
        each.close()


def read(context: ForwardContext[Any], seq_id: int, start: int, tokens: Tokens) -> Logits:
    """Add tokens to a sequence; return the last one's logits."""
    n = len(tokens)
    wanted = np.zeros(n, np.int8)
    wanted[-1] = 1
    pos = np.arange(start, start + n, dtype=np.int32)
    n_rows = context.decode(tokens, pos, np.full(n, seq_id, np.int32), wanted)
    logits: Logits = context.logits(n_rows)[0].copy()
    return logits


def test_an_ir_has_one_product_of_query_key_and_value_and_weights_without_a_zero_point(
    ir: Path, bundled: Path
) -> None:
    graph = graph_file(ir).read_text("utf-8")
    n_blocks = read_header(bundled).number("block_count")
    assert graph.count('type="VariadicSplit"') == n_blocks
    assert graph.count('type="Subtract"') == 0
    assert graph.count('element_type="u8"') == 0


def test_a_sequence_goes_on_from_a_part_of_another_one_and_neither_sees_what_follows(
    make: Callable[..., ForwardContext[Any]], text: Tokens
) -> None:
    context = make()
    whole = read(context, 0, 0, text)
    for seq_id, n_shared in ((1, 40), (2, 64), (3, 139)):  # within a block, at its end, of one
        context.copy(0, seq_id, n_shared)
        other = read(context, seq_id, n_shared, np.full(20, 77, np.int32))
        assert np.abs(other - whole).max() > NEAR
        context.trim(seq_id, n_shared)
        assert read(context, seq_id, n_shared, text[n_shared:]) == pytest.approx(whole, abs=NEAR)
    context.trim(0, 139)
    assert read(context, 0, 139, text[139:]) == pytest.approx(whole, abs=NEAR)


def test_what_was_saved_goes_on_in_another_context(
    make: Callable[..., ForwardContext[Any]], text: Tokens
) -> None:
    first, second = make(), make(2048, 2)
    whole = read(first, 0, 0, text)
    first.trim(0, 139)
    state = first.save(0)
    assert 0 < len(state) <= first.saved_bytes(0) < 10 * 10**6
    second.restore(1, state)
    second.copy(1, 0, 139)
    assert read(second, 0, 139, text[139:]) == pytest.approx(whole, abs=NEAR)
    # Its beginning may be another one's, as where a context is replaced
    second.drop_beginning(1, 100)
    second.copy(0, 1, 100)
    second.trim(0, 0)
    assert read(second, 1, 139, text[139:]) == pytest.approx(whole, abs=NEAR)


def test_rows_come_in_the_order_in_which_they_are_wanted(
    make: Callable[..., ForwardContext[Any]], text: Tokens
) -> None:
    context, ids = make(), np.array([2, 0, 2, 0, 1], np.int32)
    alone = [read(context, 3, start, text[start : start + 1]) for start in (0, 1)]
    context.trim(3, 0)
    tokens, pos = text[[0, 0, 1, 1, 0]], np.array([0, 0, 1, 1, 0], np.int32)
    n_rows = context.decode(tokens, pos, ids, np.array([1, 0, 0, 1, 1], np.int8))
    rows = context.logits(n_rows)
    assert n_rows == 3
    for row, expected in zip(rows, (alone[0], alone[1], alone[0]), strict=True):
        assert row == pytest.approx(expected, abs=NEAR)
    assert context.decode(text[:1], pos[:1], np.array([3], np.int32), np.zeros(1, np.int8)) == 0


def test_a_full_cache_is_said_and_leaves_all_as_it_was(
    make: Callable[..., ForwardContext[Any]], text: Tokens
) -> None:
    context = make(256, 1)
    whole = read(context, 0, 0, text)
    with pytest.raises(CacheFull):
        for start in range(140, 1000, 140):
            read(context, 0, start, text)
    context.trim(0, 139)
    assert read(context, 0, 139, text[139:]) == pytest.approx(whole, abs=NEAR)
    context.clear()
    assert read(context, 0, 0, text) == pytest.approx(whole, abs=NEAR)


def test_the_scheduler_gets_the_same_answers_from_both(
    by_llama: Model, by_openvino: IrModel
) -> None:
    answers = []
    for each in (by_llama, by_openvino):
        bench = Bench(each, n_parallel=2)  # the third waits, and goes on from a shared prefix
        answers.append(
            bench.run([job(each, n, text, max_tokens=12) for n, text in enumerate(SURE)])
        )
        longer = f"{SURE[0]}{answers[-1][0]}"
        answers[-1] |= bench.run([job(each, 9, longer, max_tokens=12)])
        assert bench.usages[9]["prompt_reused_tokens"] > 10
    assert answers[0] == answers[1]


def test_idle_sequences_of_an_ir_are_never_copied(
    by_openvino: IrModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(PagedContext, "save", lambda _, seq_id: saved.append(seq_id))
    bench = Bench(by_openvino, layout="auto", n_parallel=2, n_host_cache_tokens=8192)
    bench.run([job(by_openvino, 9, SURE[0], max_tokens=4, priority="interactive")])
    bench.cache.n_computed = 10**6
    bench.cache.tidy(bench.loop._scheduler.slots)
    bench.run([job(by_openvino, n, NEWS, max_tokens=4) for n in range(2)])
    assert bench.loop._scheduler.slots.idle
    assert not saved


def test_an_ir_computes_the_weights_of_its_file(
    by_llama: Model, by_openvino: IrModel, bundled: Path
) -> None:
    """openvino-genai by itself makes SmolLM2's perplexity a quarter higher: see `ir_writer`."""
    assert "Q4_1" in {TYPE_NAMES.get(each.kind) for each in read_header(bundled).tensors}
    surprises, text = [], tokens_of(by_llama)
    for each in (by_llama, by_openvino):
        with each.open_context(ContextOptions(512, 512, 1, 2)) as context:
            n = len(text)
            pos = np.arange(n, dtype=np.int32)
            n_rows = context.decode(text, pos, np.zeros(n, np.int32), np.ones(n, np.int8))
            rows = context.logits(n_rows)[:-1].astype(np.float64)
        own = rows[np.arange(n - 1), text[1:]]
        surprises.append(float(np.mean(np.log(np.exp(rows).sum(axis=1)) - own)))
    assert surprises[1] == pytest.approx(surprises[0], rel=0.03)


def test_an_ir_that_is_half_written_or_not_possible_is_said(
    tmp_path: Path, bundled: Path, ir: Path
) -> None:
    half = tmp_path / "weights.bin"
    half.write_bytes(b"")
    graph_file(half).write_bytes(graph_file(ir).read_bytes()[:10_000])
    with pytest.raises(LoadFailed, match="OpenVINO cannot use"):
        IrModel(bundled, half, 1)
    unread = tiny.copying(tmp_path / "copying.gguf")  # without `general.file_type`
    with pytest.raises(LoadFailed, match="OpenVINO cannot read such a model: unordered_map::at"):
        write_ir(unread, tmp_path / "other.bin", tmp_path / "other.xml", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages are resident")
def test_an_ir_keeps_few_pages_of_its_file_and_none_of_its_models(
    tmp_path: Path, bundled: Path, ir: Path
) -> None:
    weights, original = tmp_path / "weights.bin", tmp_path / "model.gguf"
    for target, source in ((weights, ir), (original, bundled)):
        target.write_bytes(source.read_bytes())
    graph_file(weights).write_bytes(graph_file(ir).read_bytes())
    with closing(IrModel(original, weights, 2)):
        maps = Path("/proc/self/smaps").read_text()
        assert str(original) not in maps
        resident = [
            int(line.split()[1]) * 1024
            for area in maps.split(str(weights))[1:]
            for line in area.splitlines()
            if line.startswith("Rss:")
        ][:1]
        assert sum(resident) < weights.stat().st_size / 4
