"""A copy is made whole or not at all, only once at a time, and only where it helps."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from paddock.engine.errors import EngineError, ModelUnusable
from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.llama import quantise
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile import format_speeds
from paddock.engine.profile.profile import FormatPoint
from paddock.engine.profile.trial_models import write_trial_model
from paddock.engine.settings import PoolSettings
from paddock.engine.tuning import tuner, tuning_process
from paddock.engine.tuning.tuned_copies import CopySpeeds, TunedCopy, TunedCopyStore
from paddock.engine.tuning.tuner import (
    TUNING_FORMATS,
    TuningRefused,
    TuningRequest,
    copy_bytes,
    tune,
)
from paddock.engine.workers.fallbacks import FallbackStore
from tests.optional import present

TEXT = "The ferry leaves at nine in the morning and comes back before the evening tide. " * 40


def silent(_: str) -> None:
    """No one listens."""


class Tuned:
    """A pool with the small model, and a process in place of the one that computes."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.pool = PoolSettings(
            models_dir=folder / "models", cache_dir=folder / "cache", n_threads=1
        )
        self.facts = ModelFinder(self.pool.models_dir, self.pool.cache_dir).find_original(
            "smollm2:135m"
        )
        self._script = folder / "process.py"
        patch.setattr(tuner, "_COMMAND", (sys.executable, str(self._script)))

    def process(self, *lines: str) -> None:
        """Have the process do this with its `order`, where `send` sends an event."""
        head = (
            "import os, signal, sys, time",
            "from paddock.engine.system.processes import take_order",
            "order, send = take_order()",
            "def write(text, end=''):",
            "    open(order['target'] + end, 'w').write(text)",
        )
        self._script.write_text("\n".join((*head, *lines)))

    def tune(
        self,
        name: str | None = "Q8_0",
        *,
        pool: PoolSettings | None = None,
        notes: Callable[[str], None] = silent,
    ) -> TunedCopy:
        return tune(TuningRequest(self.facts, name, 1, (TEXT,)), pool or self.pool, notes)

    def left(self) -> list[str]:
        return sorted(file.name for file in self.pool.models_dir.rglob("*") if file.is_file())


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    return Tuned(tmp_path, monkeypatch)


def test_a_real_model_gets_its_copy_and_serves_by_it(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, facts = tuned.pool, tuned.facts
    tuned._script.write_text(  # the real one, which measures each copy once: any may be quickest
        "from paddock.engine.tuning import tuning_process\n"
        "tuning_process._N_ROUNDS = tuning_process._N_TIMES = 1\n"
        "tuning_process.ENOUGH_CPU_SHARE = 0  # nor again on a busy machine\n"
        "tuning_process.run_and_exit(tuning_process.main)\n"
    )
    monkeypatch.setattr(tuner, "N_COMPARED", 64)
    monkeypatch.setattr(tuner, "N_COMPARED_OWN", 64)
    notes: list[str] = []
    documents = ("A letter about the roof. " * 10, "An offer for the gutters. " * 10)
    made = tune(
        TuningRequest(facts, None, 1, documents, is_forced=True, n_documents=2), pool, notes.append
    )
    assert notes == [
        "trying its formats",
        "writing the copy in Q8_0, F16 and BF16, to choose from",
        "measuring it and the model",
        "comparing both on real text",
    ]
    by_format = {
        "Q8_0": (47, 7, "Q4_1"), "F16": (173, 1, "Q4_1, Q8_0"), "BF16": (173, 32, "Q4_1, Q8_0")
    }  # fmt: skip
    more_mb, file_type, changed_from = by_format[made.format]  # the quickest here
    assert (made.original, made.n_compared) == (facts.digest, 64)
    assert (made.n_documents, made.changed_from, made.n_kept) == (2, changed_from, 0)
    assert 40 <= made.before.n_prompt_tokens == made.after.n_prompt_tokens <= 80
    assert made.more_bytes == pytest.approx(1e6 * more_mb, abs=2e6)
    assert made.agreement > 0.85
    assert made.exact_before is not None
    assert tuned.left() == [f"sha256-{made.digest}"], "and nothing half beside it"
    served = ModelFinder(pool.models_dir, pool.cache_dir).find("smollm2:135m")
    assert (served.digest, served.tuned_from) == (made.digest, facts.digest)
    assert read_header(Path(served.path)).values["general.file_type"] == file_type


@pytest.mark.parametrize(
    ("lines", "error", "said"),
    [
        (["send(dict(event='refused', gain=1.02, is_measured=False))"], TuningRefused,
            "a copy of 'smollm2:135m' in Q8_0 would be 1.0 times as fast at reading documents on "
            "this machine, which is not worth it; nothing was made. `--force` makes it anyway."),
        (["write('half')", "print('out of memory', file=sys.stderr, flush=True)", "os.abort()"],
            EngineError,
            "'smollm2:135m' cannot be tuned: the process was killed by SIGABRT (out of memory)"),
        (["os.kill(os.getpid(), signal.SIGILL)"], ModelUnusable,
            "killed by SIGILL while loading, also without extra buffer "
            "types and flash attention"),
    ],
    ids=["it would not help", "its process dies", "the model crashes whatever it goes without"],
)  # fmt: skip
def test_a_copy_that_cannot_be_made_is_told_and_leaves_nothing(
    tuned: Tuned, lines: list[str], error: type[Exception], said: str
) -> None:
    tuned.process(*lines)
    with pytest.raises(error) as caught:
        tuned.tune()
    assert said in (str(caught.value), getattr(caught.value, "reason", ""))
    assert tuned.left() == []


def test_a_crash_while_a_model_is_measured_is_followed_by_a_fallback(tuned: Tuned) -> None:
    tuned.process(
        "send(dict(event='note', text='measuring the copy'))",
        "order['fallback'] or os.kill(os.getpid(), signal.SIGSEGV)",
        "send(dict(event='refused', gain=1.02, is_measured=True))",
    )
    notes: list[str] = []
    with pytest.raises(TuningRefused):
        tuned.tune(notes=notes.append)
    assert notes == [
        "measuring the copy",
        "the process was killed by SIGSEGV while measuring the copy; "
        "starting it again without extra buffer types",
        "measuring the copy",
    ]
    known = present(FallbackStore(tuned.pool.cache_dir).find(tuned.facts.digest))
    assert (known.fallback, known.reason) == (1, "killed by SIGSEGV while measuring the copy")


def test_an_interruption_leaves_nothing_and_the_next_one_sweeps(tuned: Tuned) -> None:
    tuned.process("write('half')", "send(dict(event='note', text='half way'))", "time.sleep(600)")
    blobs = tuned.pool.models_dir / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f".{tuned.facts.digest[:12]}-tuned.9999999.part").write_text("of one that was killed")

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned.tune(notes=interrupt)
    assert tuned.left() == []


def test_two_at_once_are_kept_apart(tuned: Tuned) -> None:
    folder = tuned.pool.cache_dir / "tuned"
    folder.mkdir(parents=True)
    with FileLock(folder / f"{tuned.facts.digest}.lock"), pytest.raises(EngineError) as caught:
        tuned.tune()
    assert str(caught.value) == (
        "another `paddock tune` is making a copy of 'smollm2:135m'; wait for it"
    )


def test_without_room_nothing_is_begun_but_what_a_killed_one_left_is_swept_before(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = tuned.pool.models_dir / "blobs"
    blobs.mkdir(parents=True)
    left = blobs / f".{tuned.facts.digest[:12]}-tuned.9999999.part.F16.part"
    left.touch()
    monkeypatch.setattr(tuner, "free_disk_bytes", lambda _: 10**8)
    with pytest.raises(EngineError) as caught:
        tuned.tune()
    assert str(caught.value) == (
        f"the copy of 'smollm2:135m' needs up to 496 MB, but {blobs} has "
        f"100 MB left. Free disk space, or set PADDOCK_MODELS to another disk."
    )
    assert not left.exists()


def test_a_store_that_is_read_only_leaves_the_copy_in_the_cache(
    tuned: Tuned, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    tuned.process(
        "write('copy')",
        "speeds = {'prompts': 1.0, 'answer': 1.0, 'answers': 1.0}",
        "send(dict(event='done', format='Q8_0', digest='b' * 64, size_bytes=4, n_compared=9,",
        "          agreement=1.0, before=speeds, after=speeds))",
    )
    cache = tuned.pool.cache_dir / "blobs"
    made = tuned.tune(pool=replace(tuned.pool, models_dir=tmp_path / "file" / "models"))
    assert made.path == str(cache / f"sha256-{'b' * 64}")
    assert [path.name for path in cache.iterdir()] == [f"sha256-{'b' * 64}"]


def test_the_formats_are_those_that_can_be_written(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    write_trial_model(source, "F32")
    for name in TUNING_FORMATS:
        target = tmp_path / f"{name}.gguf"
        quantise.quantise(source, target, name, 1)
        assert target.stat().st_size <= copy_bytes(read_header(source), name) + 10_000, name


def test_a_format_of_which_trials_promise_nothing_is_not_even_written(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_for(tuned.facts.path, tmp_path / "x")
    monkeypatch.setattr(tuning_process, "_N_ROUNDS", 1)
    monkeypatch.setattr(tuning_process, "_N_TIMES", 1)
    monkeypatch.setattr(format_speeds, "MOST_WEIGHTS_IN_F16", 1000)
    header = read_header(Path(tuned.facts.path))
    points = tuning_process.measured_formats(order, header)
    assert {point.format for point in points} == {"Q4_1", "Q8_0"}
    expected = present(tuning_process.expected_gain(order, header, points))
    assert expected > 0
    assert tuning_process.expected_gain(order, header, ()) is None
    monkeypatch.setattr(tuning_process, "measured_formats", lambda *_: points)
    monkeypatch.setattr(tuning_process, "expected_gain", lambda *_: 1.02)
    events: list[dict[str, object]] = []
    tuning_process.make_copy(order, events.append)
    assert events[1:] == [{"event": "refused", "gain": 1.02, "is_measured": False}]
    assert not (tmp_path / "x").exists()


def order_for(
    source: str | Path, target: Path, *, is_forced: bool = False
) -> tuning_process.TuningOrder:
    return tuning_process.TuningOrder(
        str(source), str(target), None, 1, 0, 64, 64, 0, is_forced, (TEXT,)
    )


def points(**seconds: float) -> tuple[FormatPoint, ...]:
    """Formats that take so long for a piece of a prompt, and a hundredth for a few rows."""
    return tuple(
        FormatPoint(name, n_rows, took_s * share)
        for name, took_s in seconds.items()
        for n_rows, share in ((1, 0.01), (8, 0.02), (256, 1.0))
    )


def test_only_tensors_that_measure_slow_are_changed_unless_there_are_none_and_it_is_forced(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source.gguf"
    write_trial_model(source, "Q6_K")
    header, order = read_header(source), order_for(source, tmp_path / "x")
    slow, quick = points(Q6_K=4.0, Q8_0=2.0), points(Q6_K=2.0, Q8_0=2.0)
    every = {tensor.name for tensor in header.tensors if len(tensor.axes) > 1}
    assert tuning_process.tensors_to_change(order, header, slow) == every
    assert tuning_process.tensors_to_change(order, header, quick) == set()
    assert tuning_process.tensors_to_change(replace(order, is_forced=True), header, quick) == every
    assert tuning_process.tensors_to_change(order, header, ()) == every, (
        "on a device of which nothing is known"
    )
    assert tuning_process.tensors_to_change(replace(order, format="Q8_0"), header, quick) == every


class Trial:
    """A small model, and its copies with stand-ins for their speeds and comparison.

    `by_format` are the speeds of a file by the format of its matrices; `compared` is what is found
    of one. `clocks` tells which clocks were used.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.source, self.target = folder / "source.gguf", folder / "x"
        self.by_format: dict[str, CopySpeeds] = {}
        self.compared: Callable[[str], dict[str, object]] = lambda name: {}
        self.clocks: list[bool] = []
        self._patch = patch

    def begin(self, source: str = "Q6_K", **by_format: CopySpeeds) -> None:
        write_trial_model(self.source, source)
        self.by_format = {source: _SAME, **by_format}
        stand_ins: dict[str, Callable[..., object]] = {
            "measure_speeds": self._speeds,
            "expected_gain": lambda *_: 3.0,
            "measured_formats": lambda *_: points(Q6_K=900.0, Q8_0=2.0),
            "_compared": lambda _, copies, __: map(self.compared, map(matrix_format, copies)),
        }
        for name, stand_in in stand_ins.items():
            self._patch.setattr(tuning_process, name, stand_in)

    def _speeds(self, path: Path, *_: object, counts_cpu: bool = False) -> CopySpeeds:
        self.clocks.append(counts_cpu)
        return self.by_format[matrix_format(path)]

    def make(self, **changes: Any) -> dict[str, Any]:
        """Make a copy; return the last event."""
        events: list[dict[str, Any]] = []
        order = replace(order_for(self.source, self.target), **changes)
        tuning_process.make_copy(order, events.append)
        return events[-1]

    def made(self, **changes: Any) -> str:
        """Make a copy; return its format."""
        name: str = self.make(**changes)["format"]
        assert name == matrix_format(self.target)
        return name

    def becomes_large(self) -> None:
        """Have the model count as too large for copies in 16 bits."""
        self._patch.setattr(format_speeds, "MOST_WEIGHTS_IN_F16", 1000)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    return Trial(tmp_path, monkeypatch)


_SAME = CopySpeeds(100.0, 50.0, 80.0)


@pytest.mark.parametrize(("share", "counts_cpu"), [(0.95, False), (0.3, True)])
def test_a_copy_that_measures_no_faster_is_refused_on_a_busy_machine_by_processor_time(
    trial: Trial, tmp_path: Path, share: float, counts_cpu: bool
) -> None:
    same = CopySpeeds(100.0, 50.0, 80.0, share)
    trial.begin(Q6_K=same, Q8_0=same, F16=same, BF16=same)
    assert trial.make() == {"event": "refused", "gain": pytest.approx(1.0), "is_measured": True}
    assert trial.clocks[-1] == counts_cpu
    assert sorted(tmp_path.iterdir()) == [trial.source, trial.target], "the caller removes `x`"


_TWICE, _THRICE = CopySpeeds(200.0, 50.0, 80.0), CopySpeeds(300.0, 50.0, 80.0)
_NO_BETTER = CopySpeeds(190.0, 50.0, 80.0)


@pytest.mark.parametrize(
    ("halves", "brains", "format_name"),
    [
        (_THRICE, _TWICE, "F16"),
        (_TWICE, _THRICE, "BF16"),
        (_THRICE, CopySpeeds(310.0, 50.0, 80.0), "F16"),
        (_NO_BETTER, _NO_BETTER, "Q8_0"),
        (_THRICE, CopySpeeds(400.0, 30.0, 80.0), "BF16"),
        (CopySpeeds(300.0, 20.0, 80.0), CopySpeeds(400.0, 20.0, 80.0), "Q8_0"),
    ],
    ids=[
        "F16 is quickest",
        "BF16 is quickest",
        "BF16 by noise",
        "slower with prompts",
        "answers alone somewhat more slowly",
        "answers alone much more slowly",
    ],
)
def test_a_small_model_is_written_in_the_16_bits_that_are_quickest(
    trial: Trial, tmp_path: Path, halves: CopySpeeds, brains: CopySpeeds, format_name: str
) -> None:
    trial.begin(Q8_0=_TWICE, F16=halves, BF16=brains)
    made = trial.make()
    assert made["format"] == matrix_format(trial.target) == format_name
    assert made["size_bytes"] == trial.target.stat().st_size
    assert sorted(tmp_path.iterdir()) == [trial.source, trial.target], "and nothing beside it"
    trial.becomes_large()
    assert trial.made() == "Q8_0", "of a larger model it would be too large"


def test_a_small_model_of_8_bits_is_tried_in_16_which_may_be_quicker(trial: Trial) -> None:
    trial.begin("Q8_0", F16=_TWICE, BF16=_THRICE)
    assert trial.made() == "BF16"
    trial.becomes_large()
    assert trial.make()["event"] == "unfit", "of a larger model they would be too large"


def test_a_copy_that_only_reads_faster_and_answers_much_slower_is_refused(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = CopySpeeds(300.0, 20.0, 80.0)
    trial.begin(F16=slow, BF16=slow)
    monkeypatch.setattr(tuning_process, "tensors_to_change", lambda *_: frozenset())
    made = trial.make()
    assert made["event"] == "unfit"
    assert "write one answer much more slowly; nothing was made." in made["why"]
    assert sorted(tmp_path.iterdir()) == [trial.source]


def matrix_format(path: Path) -> str:
    tensors = read_header(path).tensors
    return next(
        TYPE_NAMES[tensor.kind] for tensor in tensors if tensor.name == "blk.0.ffn_down.weight"
    )


def test_vectors_of_a_wider_copy_are_as_near_to_exact_arithmetic(tmp_path: Path) -> None:
    finder = ModelFinder(tmp_path / "models", tmp_path / "cache")
    source = Path(finder.find_original("all-minilm").path)
    order = replace(order_for(source, tmp_path / "x"), n_least=128, n_compared=128)
    header = read_header(source)
    copies = [tmp_path / name for name in ("F16", "Q4_0")]
    quantise.write_widened(source, copies[0], tuning_process.wide_tensors(header), "F16", 1)
    quantise.quantise(source, copies[1], "Q4_0", 1)
    near, far = tuning_process._compared(order, copies, CopySpeeds(1.0, 1.0, 1.0))
    assert near["n_compared"] == 4
    assert far["exact_after"] < far["exact_before"] <= near["exact_after"] <= 1
    assert (near["is_as_near"], far["is_as_near"]) == (True, False)


def predictions(*right_shares: float, likeliest: int = 0) -> tuning_process.Results:
    """Of two tokens at each place: the first has these shares."""
    shares = np.array(right_shares, np.float32)
    logprobs = np.log(np.stack([shares, 1 - shares], axis=1))
    ids, tokens = np.zeros((len(shares), 1), np.int64), np.full(len(shares), likeliest, np.int32)
    return tuning_process.Results(tokens, ids, logprobs, np.empty((0, 0), np.float32))


def test_a_copy_must_predict_as_often_right_and_be_no_farther_away_in_the_mean() -> None:
    truth, before = predictions(*[0.9, 0.8] * 50), predictions(*[0.88, 0.82] * 50)
    assert tuning_process.is_as_near(truth, before, before)
    assert tuning_process.is_as_near(truth, before, truth)
    assert not tuning_process.is_as_near(truth, truth, before), "the same tokens, but less sure"
    unlike = replace(before, likeliest=before.likeliest + 1)
    assert not tuning_process.is_as_near(truth, before, unlike)
    assert tuning_process.is_as_near(truth, unlike, before)


def test_a_model_of_floats_is_changed_only_by_name(trial: Trial) -> None:
    write_trial_model(trial.source, "F16")
    assert trial.make() == {
        "event": "unfit",
        "why": "it has no matrices of fewer than 8 bits; others are changed only with `--format`",
    }


def test_a_refusal_leaves_no_file_and_is_remembered_for_this_machine(tuned: Tuned) -> None:
    tuned.process(
        "write('Q8_0')",
        "write('F16', '.F16.part')",
        "send(dict(event='unfit', why='it is farther'))",
        "time.sleep(60)",
    )
    with pytest.raises(TuningRefused, match="'smollm2:135m' cannot be tuned: it is farther"):
        tuned.tune(None)
    assert tuned.left() == []
    store = TunedCopyStore(tuned.pool.cache_dir)
    known = present(store.verdict(tuned.facts.digest, tuner.tuning_place(tuned.pool, 1)))
    assert (known.text, known.is_advice) == ("it is farther", False)
    assert store.verdict(tuned.facts.digest, "another processor") is None


@pytest.mark.parametrize(
    ("far", "format_name"),
    [({"F16"}, "BF16"), ({"F16", "BF16"}, "Q8_0"), ({"F16", "BF16", "Q8_0"}, "")],
)
def test_the_quickest_copy_that_is_as_near_to_exact_arithmetic_is_kept(
    trial: Trial, far: set[str], format_name: str
) -> None:
    trial.begin(Q8_0=CopySpeeds(150.0, 50.0, 80.0), F16=_THRICE, BF16=_TWICE)
    trial.compared = lambda name: {"is_as_near": name not in far}
    if format_name:
        assert trial.made() == format_name
    else:
        made = trial.make()
        assert made["event"] == "unfit"
        assert "are farther from exact arithmetic; nothing was made." in made["why"]
    assert trial.make(is_forced=True)["format"] == "F16", "what is forced need not be near"


_FASTER = CopySpeeds(220.0, 50.0, 80.0)


@pytest.mark.parametrize(
    ("near", "format_name"),
    [({"F16": _THRICE}, "F16"), ({"F16": _FASTER}, "Q8_0"), ({}, "Q8_0")],
    ids=["much quicker", "quicker by noise", "beyond the bound"],
)
def test_with_near_a_copy_within_the_bound_is_kept_if_it_is_much_quicker(
    trial: Trial, near: dict[str, CopySpeeds], format_name: str
) -> None:
    trial.begin(Q8_0=_TWICE, F16=near.get("F16", _THRICE), BF16=_THRICE)
    found = {"divergence": 0.004, "exact_before": 0.99, "exact_after": 0.95}
    trial.compared = lambda name: {
        "is_as_near": name == "Q8_0", "is_within_bound": name in near, **found
    }  # fmt: skip
    made = trial.make(is_near=True)
    assert made["format"] == matrix_format(trial.target) == format_name
    assert (made["is_near"], made["divergence"]) == (format_name == "F16", 0.004)
    made = trial.make()
    assert (made["format"], made["is_near"]) == ("Q8_0", False), "which is as near"


def test_with_near_models_of_16_bits_get_copies_too(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.begin("F16", Q8_0=_TWICE, BF16=_THRICE)
    compared = {"is_as_near": False, "is_within_bound": True}
    trial.compared = lambda _: dict[str, object](compared)
    made = trial.make(is_near=True)
    assert (made["format"], made["is_near"]) == (matrix_format(trial.target), True)
    assert made["format"] == "BF16"
    trial.becomes_large()
    assert trial.made(is_near=True) == "Q8_0", "as it is small"
    compared["is_within_bound"] = False
    why = trial.make(is_near=True)["why"]
    assert "are farther from exact arithmetic" in why, "a chosen format, too"
    monkeypatch.setattr(format_speeds, "MOST_WEIGHTS_JUDGED", 1000)
    made = trial.make(is_near=True)
    assert made == {"event": "unfit", "why": tuning_process._NOTHING_LOW}


def test_the_bound_of_near_counts_from_exact_arithmetic() -> None:
    truth = predictions(*[0.9, 0.8] * 50)
    assert tuning_process.is_within_bound(truth, truth)
    assert tuning_process.is_within_bound(truth, predictions(*[0.88, 0.82] * 50))
    assert not tuning_process.is_within_bound(truth, predictions(*[0.84, 0.86] * 50))
    unlike = replace(truth, likeliest=np.array([0] * 93 + [1] * 7, np.int32))
    assert not tuning_process.is_within_bound(truth, unlike)
    angles = np.array([0.04, 0.05])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    axis = np.array([[1, 0], [1, 0]], np.float32)
    assert not tuning_process.is_within_bound(
        replace(truth, vectors=axis), replace(truth, vectors=vectors)
    )
    assert tuning_process.is_within_bound(
        replace(truth, vectors=axis[:1]), replace(truth, vectors=vectors[:1])
    )
