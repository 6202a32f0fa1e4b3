"""A copy is made whole or not at all, where it is faster and says the same."""

import json
import random
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from paddock.engine.arrays import Vectors
from paddock.engine.gguf import GgufHeader, GgufScalar, GgufTensor, read_header
from paddock.engine.llama.quantise import quantise
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.measure import BenchOptions
from paddock.engine.settings import PoolSettings
from paddock.engine.system.file_locks import lock_now
from paddock.engine.system.records import asdict, replace
from paddock.engine.tuning import copy_comparison, tuned_copies, tuner, tuning_process
from paddock.engine.tuning.copy_comparison import Computed, agreement
from paddock.engine.tuning.copy_order import CopyOrder
from paddock.engine.tuning.copy_trials import CopyRefused, CopySpeeds, MeasuredModels, Weights
from paddock.engine.tuning.tuned_copies import (
    OPENVINO,
    TunedCopy,
    TunedCopyStore,
    copy_format,
    copy_place,
    graph_file,
    may_have_ir,
)
from paddock.engine.tuning.tuner import TuningNotNow, TuningStop, tune
from paddock.engine.tuning.tuning_process import make_copy
from tests.fakes import tiny
from tests.fakes.one_layer import write_one_layer

KINDS = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12}


def header(million_weights: int, **kinds: str) -> GgufHeader:
    tensors = [GgufTensor("norm.weight", 0, (1000,))]
    tensors += [
        GgufTensor(name, KINDS[kind], (1000, 1000 * million_weights // len(kinds)))
        for name, kind in kinds.items()
    ]
    return GgufHeader(3, len(tensors), {}, {}, tuple(tensors))


@pytest.mark.parametrize(
    ("model", "features", "format_name", "names"),
    [
        (header(135, a="Q4_1", b="Q8_0", c="F16"), ("avx2", "avx512_bf16"), "BF16", {"a", "b"}),
        (header(135, a="Q4_K", b="F32"), ("avx2",), "F16", {"a"}),
        (header(135, a="F16"), ("avx512_bf16",), "BF16", set()),
        (header(1000, a="Q4_1", b="Q4_K"), ("avx512_bf16",), "Q8_0", {"a"}),
        (header(1000, a="Q4_K", b="Q8_0"), ("avx2",), "Q8_0", set()),
        (header(8000, a="Q4_1"), ("avx512_bf16",), "Q8_0", set()),
    ],
    ids=["AVX512_BF16", "AVX2", "nothing to change", "1B", "1B with kernels", "8B"],
)
def test_the_format_follows_from_the_size_and_the_processor(
    model: GgufHeader, features: tuple[str, ...], format_name: str, names: set[str]
) -> None:
    assert copy_format(model, features) == (format_name, frozenset(names))


def copy_in(folder: Path, original: str, digest: str = "e" * 64) -> TunedCopy:
    """Put a copy's file into the store's blobs."""
    blob = folder / "models" / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(b"a copy")
    known = TunedCopy("smollm2:135m", original, "", copy_place(), "", digest, str(blob), "BF16", 6)
    return replace(known, prompts_ratio=4.1, answers_ratio=2.0, agreement=0.954)


@pytest.fixture
def book(tmp_path: Path) -> TunedCopyStore:
    return TunedCopyStore(tmp_path / "cache")


def test_a_copy_is_found_until_its_file_is_gone_or_the_processor_another(
    tmp_path: Path, book: TunedCopyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copy_in(tmp_path, "a" * 64)
    assert book.find("a" * 64) is None
    book.keep(made)
    assert book.find("a" * 64) == made
    assert list(book.all()) == [made]
    with monkeypatch.context() as within:
        within.setattr(tuned_copies, "copy_place", lambda: "another processor")
        assert book.record("a" * 64) is book.find("a" * 64) is None
    Path(made.path).write_bytes(b"half")
    assert book.find("a" * 64) is None
    Path(made.path).unlink()
    assert list(book.all()) == []


def test_any_damage_to_a_record_makes_it_none_or_another_one(
    tmp_path: Path, book: TunedCopyStore
) -> None:
    book.keep(copy_in(tmp_path, "a" * 64))
    (file,) = book.folder.iterdir()
    whole, chance = file.read_bytes(), random.Random(24)
    for text in (b"", b"[]", b"{}", json.dumps({"version": 2, "name": [5]}).encode()):
        file.write_bytes(text)
        assert book.find("a" * 64) is None
    for _ in range(120):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(7)
        file.write_bytes(data)
        [copy.summary for copy in book.all()]


def test_a_file_goes_with_its_record_unless_a_name_stands_for_it(
    tmp_path: Path, book: TunedCopyStore
) -> None:
    first, second = copy_in(tmp_path, "a" * 64), copy_in(tmp_path, "a" * 64, "f" * 64)
    book.keep(first)
    book.keep(second)
    assert not Path(first.path).exists(), "the second takes its place"
    book.refuse("a" * 64, "it failed")
    assert not Path(second.path).exists()
    assert (book.find("a" * 64), book.record("a" * 64)) == (
        None, TunedCopy("smollm2:135m", "a" * 64, "", copy_place(), "it failed"),
    )  # fmt: skip
    named = copy_in(tmp_path, "a" * 64)
    book.keep(named)
    manifest = tmp_path / "models/manifests/registry.ollama.ai/library/other/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f'{{"layers": [{{"digest": "sha256:{named.digest}"}}]}}', "utf-8")
    book.remove_copies("a" * 64)
    assert Path(named.path).exists()
    (tmp_path / "letter.txt").write_text("mine")
    book.keep(replace(named, path=str(tmp_path / "letter.txt")))
    book.remove_copies("a" * 64)
    assert (tmp_path / "letter.txt").exists(), "no blob"


def test_an_ir_goes_with_its_record_and_no_file_elsewhere(
    tmp_path: Path, book: TunedCopyStore
) -> None:
    own, foreign = book.ir_weights("a" * 64), tmp_path / "letters" / "tuned" / "mine.bin"
    for file in (own, foreign):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weight")
        graph_file(file).write_text("graph")
    known = copy_in(tmp_path, "a" * 64)
    book.keep(replace(known, path=str(own), format=OPENVINO, size_bytes=6))
    assert book.find("a" * 64) is not None
    book.refuse("a" * 64, "it failed")
    assert (own.exists(), graph_file(own).exists()) == (False, False)
    book.keep(replace(known, path=str(foreign), format=OPENVINO, size_bytes=6))
    book.remove_copies("a" * 64)
    assert (foreign.exists(), graph_file(foreign).exists()) == (True, True)


@pytest.mark.parametrize(
    ("values", "tensors", "may"),
    [
        ({}, (), True),
        ({"llama.attention.sliding_window": 0}, (), True),
        ({"llama.attention.sliding_window": 4096}, (), False),
        ({"llama.rope.scaling.type": "yarn"}, (), False),
        ({"llama.rope.scaling.factor": 8.0}, (), False),
        ({}, (GgufTensor("rope_freqs.weight", 0, (32,)),), False),
        ({}, (GgufTensor("rope_factors_long.weight", 0, (48,)),), False),
        ({}, (GgufTensor("output.weight", 0, (3 * 10**9,)),), False),
        ({"bert.pooling_type": 1, "general.architecture": "bert"}, (), True),
        ({"bert.pooling_type": 4, "general.architecture": "bert"}, (), False),
        ({"nomic-bert.pooling_type": 1, "general.architecture": "nomic-bert"}, (), False),
    ],
)
def test_a_model_whose_positions_a_short_text_does_not_try_has_no_ir(
    values: dict[str, GgufScalar], tensors: tuple[GgufTensor, ...], may: bool
) -> None:
    values = {"general.architecture": "llama", **values}
    assert may_have_ir(GgufHeader(3, len(tensors), values, {}, tensors)) is may


def test_copies_of_gone_models_and_of_earlier_versions_go_and_those_of_files_elsewhere_stay(
    tmp_path: Path,
) -> None:
    finder = ModelFinder(tmp_path / "models", tmp_path)
    file = tmp_path / "elsewhere.gguf"
    file.write_bytes(b"GGUF")
    stays, goes, old = (
        replace(copy_in(tmp_path, mark * 64, mark * 64), original_path=str(path))
        for mark, path in (("a", file), ("b", tmp_path / "gone.gguf"), ("c", file))
    )
    finder.tuned.keep(stays)
    finder.tuned.keep(goes)
    (finder.tuned.folder / f"{'c' * 64}.json").write_text(
        json.dumps({**asdict(old), "version": 1, "before": {"prompts": 500.0}})
    )
    assert finder.tuned.find("c" * 64) is None
    assert finder.forget_copies_of_gone_models() == ["smollm2:135m", "smollm2:135m"]
    assert [Path(copy.path).exists() for copy in (stays, goes, old)] == [True, False, False]
    assert [entry.name for entry in finder.tuned.folder.iterdir()] == [f"{'a' * 64}.json"]


class Tuned:
    """A pool's settings, the bundled model, and a process in place of the one that computes."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.pool = PoolSettings(models_dir=folder / "models", cache_dir=folder / "cache")
        self.finder = ModelFinder(self.pool.models_dir, self.pool.cache_dir)
        self.facts = self.finder.find_original("smollm2:135m")
        self._script = folder / "process.py"
        patch.setattr(tuner, "_COMMAND", (sys.executable, str(self._script)))

    def script(self, *lines: str) -> None:
        self._script.write_text("\n".join(lines))

    def process(self, *lines: str) -> None:
        """Have the process do this with its `order`, where `send` sends an answer."""
        self.script(
            "import os, signal",
            "from paddock.engine.system.frame_processes import take_order",
            "order, send = take_order()",
            "open(order['target'], 'w').write('copy')",
            *lines,
        )

    def tune(self, stop: TuningStop | None = None, pool: PoolSettings | None = None) -> TunedCopy:
        return tune(self.facts, pool or self.pool, 1, stop or TuningStop())

    @property
    def record(self) -> TunedCopy | None:
        return self.finder.tuned.record(self.facts.digest)

    def left(self) -> list[str]:
        return sorted(file.name for file in self.pool.models_dir.rglob("*") if file.is_file())


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    return Tuned(tmp_path, monkeypatch)


def test_a_model_gets_its_copy_and_serves_by_it(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    quantise(tiny.llama(tmp_path / "floats.gguf"), path, "Q4_1", 1)
    tuned.facts = tuned.finder.find_original(str(path))
    tuned.script(  # the real process, whatever the speeds of this machine
        "from paddock.engine.tuning import copy_comparison, copy_trials, tuning_process",
        "copy_trials._N_TURNS = 1",
        "tuning_process.LEAST_GAIN = copy_trials._SLOWEST_ANSWER = 0.0",
        "copy_trials.CopySpeeds.seconds_per_document = lambda *_: 1.0",
        "copy_trials.ENOUGH_CPU_SHARE = 0",
        "tuning_process.lower_priority = lambda _: None",
        "copy_comparison.MOST_PERPLEXITY = 1.05",
        "tuning_process.run_and_exit(tuning_process.main)",
    )
    made = tuned.tune()
    assert made == tuned.record
    assert (made.why_none, made.format in ("BF16", "F16")) == ("", True)
    assert 0.88 < made.agreement < 1
    assert tuned.left() == [f"sha256-{made.digest}"], "and nothing half beside it"
    served = tuned.finder.find(str(path))
    assert (served.digest, served.tuned_from) == (made.digest, tuned.facts.digest)
    file_type = read_header(Path(served.path)).values["general.file_type"]
    assert file_type == {"F16": 1, "BF16": 32}[made.format]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("send({'copy': {**order['model'], 'why_none': 'it is no faster'}})", "it is no faster"),
        ("os.kill(os.getpid(), signal.SIGILL)", "the process was killed by SIGILL"),
        ("raise SystemExit('no such tensor')", "the process ended with status 1 (no such tensor)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", None),
        ("send({'not_now': 'the disk is full'})", None),
    ],
)
def test_what_is_no_copy_leaves_nothing_but_the_reason_unless_it_may_be_one_later(
    tuned: Tuned, line: str, why: str | None
) -> None:
    tuned.process(line)
    if why is None:
        with pytest.raises(TuningNotNow):
            tuned.tune()
        assert tuned.record is None
    else:
        assert tuned.tune().why_none == why
        assert tuned.finder.find("smollm2:135m") == tuned.facts
    assert tuned.left() == []


def test_a_stop_ends_it_and_the_next_one_sweeps_what_a_killed_one_left(tuned: Tuned) -> None:
    tuned.process("import time; time.sleep(600)")
    blobs = tuned.pool.models_dir / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f".{tuned.facts.digest[:12]}-tuned.9999999.part").write_text("of one that was killed")
    stop = TuningStop()
    stop.set()
    with pytest.raises(TuningNotNow, match="was interrupted"):
        tuned.tune(stop)
    assert tuned.left() == []


def test_half_an_ir_of_a_killed_process_goes_and_one_that_is_made_stays(tuned: Tuned) -> None:
    left, made = (tuned.finder.tuned.folder / f"{mark * 64}.ir" for mark in "ab")
    for folder in (left, made):
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_text("half")
    with lock_now(made.with_suffix(".lock")):
        tuner.remove_left_parts(tuned.pool)
    assert (left.exists(), made.exists()) == (False, True)


def test_two_at_once_are_kept_apart_and_without_room_nothing_is_begun(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        lock_now(tuned.finder.tuned.folder / f"{tuned.facts.digest}.lock"),
        pytest.raises(TuningNotNow, match="another process is making a copy of 'smollm2:135m'"),
    ):
        tuned.tune()
    for name in ("free_disk_bytes", "read_memory"):
        with monkeypatch.context() as within:
            within.setattr(tuner, name, lambda *_: room(10**8))
            with pytest.raises(TuningNotNow, match="has no room for a copy of 'smollm2:135m'"):
                tuned.tune()
    folder = tuned.finder.tuned.folder  # of IRs, on a disk of its own
    with monkeypatch.context() as within:
        within.setattr(tuner, "may_have_ir", lambda _: True)
        within.setattr(tuner, "free_disk_bytes", lambda place: 10**8 if place == folder else 10**12)
        with pytest.raises(TuningNotNow, match="has no room for a copy of 'smollm2:135m'"):
            tuned.tune()
    assert (tuned.record, tuned.left()) == (None, [])


class room(int):
    """So many bytes, of a disk and of memory."""

    @property
    def free_bytes(self) -> int:
        return int(self)


def test_a_store_that_is_read_only_leaves_the_copy_in_the_cache(
    tuned: Tuned, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    tuned.process(
        "made = {'path': order['target'], 'digest': 'b' * 64, 'size_bytes': 4, 'format': 'BF16'}",
        "send({'copy': {**order['model'], **made}})",
    )
    made = tuned.tune(pool=replace(tuned.pool, models_dir=tmp_path / "file" / "models"))
    assert made.path == str(tuned.pool.cache_dir / "blobs" / f"sha256-{'b' * 64}")
    assert Path(made.path).read_text() == "copy"


ORIGINAL = np.array([0, 1] * 50, np.int32)


def vectors(*angles: float) -> Vectors:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("original", "copy", "share"),
    [
        (ORIGINAL, ORIGINAL, 1.0),
        (ORIGINAL, np.array([0, 1] * 45 + [1, 0] * 5, np.int32), 0.9),
        (vectors(0.0, 0.0), vectors(0.0, np.pi / 3), 0.75),
    ],
    ids=["same tokens", "other tokens", "vectors"],
)
def test_agreement_is_the_share_of_equal_tokens_or_the_mean_cosine(
    original: NDArray[Any], copy: NDArray[Any], share: float
) -> None:
    assert agreement(original, copy) == pytest.approx(share)


def order_of_copy(source: Path, target: Path, ir: Path | None = None) -> CopyOrder:
    model = TunedCopy("m", "a" * 64, str(source), "here")
    return CopyOrder(model, target, "F16", ["blk.0.ffn_up.weight"], ir, 1, 0, ())


SAME, SLOW_ALONE = CopySpeeds(100.0, 50.0, 80.0), CopySpeeds(300.0, 24.0, 80.0)


@pytest.mark.parametrize(
    ("after", "copy", "why"),
    [
        (CopySpeeds(300.0, 40.0, 80.0), ORIGINAL, None),
        (CopySpeeds(110.0, 50.0, 80.0), ORIGINAL, "it would read documents 1.09 times as fast"),
        (SLOW_ALONE, ORIGINAL, "it would write one answer alone much more slowly"),
        (CopySpeeds(300.0, 40.0, 80.0), 1 - ORIGINAL, "its next tokens differ (0.0% are the same)"),
    ],
    ids=["worth it", "no faster", "slow alone", "other answers"],
)  # fmt: skip
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_copy_is_kept_where_it_is_worth_it_also_beside_other_programs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: CopySpeeds,
    copy: NDArray[np.int32],
    why: str | None,
    share: float,
) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    write_one_layer(source, "Q4_1")
    clocks: list[bool] = []

    def speeds(
        contenders: list[Weights], *_: object, counts_cpu: bool = False
    ) -> dict[Weights, CopySpeeds]:
        clocks.append(counts_cpu)
        # A copy's threads may rest where nothing disturbs them, as OpenVINO's do
        return {
            each: replace(after, share=0.8 * share) if each.format else replace(SAME, share=share)
            for each in contenders
        }

    results: Callable[..., Any] = lambda weights, *_: Computed(  # noqa: E731
        ORIGINAL if weights.path == source else copy
    )
    monkeypatch.setattr(tuning_process, "measure_speeds", speeds)
    monkeypatch.setattr(copy_comparison, "computed_results", results)
    monkeypatch.setattr(MeasuredModels, "load", lambda _, weights, like: weights)
    if why is None:
        done = make_copy(order_of_copy(source, target))
        assert (done.prompts_ratio, done.size_bytes) == (3.0, target.stat().st_size)
    else:
        with pytest.raises(CopyRefused, match=f"^{re.escape(why)}"):
            make_copy(order_of_copy(source, target))
    assert clocks[-1] == (share < 0.5)


def test_a_model_is_loaded_once_and_an_ir_again_for_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    class Opened:
        def __init__(self, weights: Weights, like: BenchOptions) -> None:
            self.name = f"{weights.file}, {like.n_threads}"
            opened.append(self.name)

        def close(self) -> None:
            opened.remove(self.name)

    monkeypatch.setattr(Weights, "load", lambda weights, like: Opened(weights, like))
    file, ir = Weights(Path("file")), Weights(Path("file"), Path("ir"))
    with closing(MeasuredModels()) as models:
        first = [models.load(each, BenchOptions(0, 0, 2)) for each in (file, ir)]
        assert models.load(ir, BenchOptions(0, 0, 2)) is first[1]
        assert models.load(file, BenchOptions(0, 0, 1)) is first[0]
        assert models.load(ir, BenchOptions(0, 0, 1)) is not first[1]
        assert opened == ["file, 2", "ir, 1"]
    assert not opened


def test_copies_that_cannot_be_measured_again_are_none_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.gguf"
    write_one_layer(source, "Q4_1")

    def speeds(
        contenders: list[Weights], *_: object, counts_cpu: bool = False
    ) -> dict[Weights, CopySpeeds]:
        if counts_cpu:
            raise CopyRefused("no memory is left")
        return dict.fromkeys(contenders, replace(SAME, share=0.3))

    monkeypatch.setattr(tuning_process, "measure_speeds", speeds)
    with pytest.raises(CopyRefused, match="no memory is left"):
        make_copy(order_of_copy(source, tmp_path / "target.gguf"))


@pytest.mark.parametrize(
    ("speed", "is_right", "kept", "is_written"),
    [(500.0, True, OPENVINO, False), (150.0, True, "F16", True), (500.0, False, "F16", True)],
    ids=["sure", "less sure", "read wrongly"],
)
def test_a_copy_for_llama_is_written_where_no_ir_surely_wins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    speed: float,
    is_right: bool,
    kept: str,
    is_written: bool,
) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    ir = tmp_path / "weights.bin"
    for file in (ir, graph_file(ir)):
        file.write_bytes(b"ir")
    write_one_layer(source, "Q4_1")
    known = {
        "": SAME,
        OPENVINO: CopySpeeds(speed, 50.0, speed),
        "F16": CopySpeeds(300.0, 50.0, 300.0),
    }
    monkeypatch.setattr(tuning_process, "_write_irs", lambda *_: [Weights(source, ir, OPENVINO)])
    monkeypatch.setattr(
        tuning_process,
        "measure_speeds",
        lambda found, *_: {each: known[each.format] for each in found},
    )
    results: Callable[..., Any] = lambda weights, *_: Computed(  # noqa: E731
        ORIGINAL if is_right or weights.ir is None else 1 - ORIGINAL
    )
    monkeypatch.setattr(copy_comparison, "computed_results", results)
    monkeypatch.setattr(MeasuredModels, "load", lambda _, weights, like: weights)
    done = make_copy(order_of_copy(source, target, ir))
    assert (done.format, target.exists()) == (kept, is_written)
