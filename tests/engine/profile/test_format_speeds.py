"""A promise follows from the weights' formats and their measured kernels."""

from dataclasses import replace

import pytest

from paddock.engine.gguf import GgufHeader, GgufTensor
from paddock.engine.profile.context_layout import Workload
from paddock.engine.profile.format_speeds import (
    SlowFormats,
    count_weights,
    formats_to_measure,
    predicted_gain,
    predicted_profile,
    predicted_prompt_gain,
    slow_formats,
    slow_tensors,
)
from paddock.engine.profile.profile import DecodePoint, FormatPoint, PrefillPoint, Profile, Weights
from tests.optional import present

# SmolLM2-135M in Q4_1 on 2 cores: 256 tokens take 0.5 s, most of it in the matrices.
PROFILE = Profile(
    "d" * 64, "cpu2", "b", 0.0, 2, 1.0, 98 << 20, 23_040.0,
    prefill=(PrefillPoint(64, 480.0), PrefillPoint(256, 512.0)),
    decode=(DecodePoint(1, 64, True, 190.0), DecodePoint(8, 64, True, 280.0)),
    formats=(
        FormatPoint("Q4_1", 1, 0.03), FormatPoint("Q4_1", 8, 0.16), FormatPoint("Q4_1", 256, 4.2),
        FormatPoint("Q8_0", 1, 0.04), FormatPoint("Q8_0", 8, 0.08), FormatPoint("Q8_0", 256, 2.0),
    ),
    weights=(Weights("Q4_1", 106e6), Weights("Q8_0", 0.0, 28e6)),
)  # fmt: skip

READING = Workload(16, 700, 20)
ALONE = Workload(1, 10, 500)


def test_a_format_without_fast_kernels_promises_a_gain_in_reading() -> None:
    gain = present(predicted_prompt_gain(PROFILE))
    # Of 0.5 s for 256 tokens the matrices cost 0.445 s, and would cost 0.212 s.
    assert gain == pytest.approx(0.5 / (0.5 - 0.106 * (4.2 - 2.0)))


def test_the_promise_depends_on_the_job() -> None:
    reading, writing = predicted_gain(PROFILE, READING), predicted_gain(PROFILE, ALONE)
    assert reading is not None
    assert writing is not None
    assert reading > 1.3 > 1.0 > writing, "one token at a time, larger weights are slower"


def test_nothing_is_promised_where_nothing_was_measured() -> None:
    assert predicted_gain(replace(PROFILE, formats=()), READING) is None
    assert predicted_gain(replace(PROFILE, weights=()), READING) is None
    assert predicted_gain(replace(PROFILE, prefill=()), READING) is None
    assert predicted_prompt_gain(replace(PROFILE, formats=())) is None


def test_a_model_in_the_format_already_gains_nothing() -> None:
    tuned = replace(PROFILE, weights=(Weights("Q8_0", 106e6, 28e6),))
    assert predicted_gain(tuned, READING) == pytest.approx(1.0)


def test_a_trial_that_errs_cannot_promise_wonders() -> None:
    absurd = replace(PROFILE, weights=(Weights("Q4_1", 106e12),))
    changed = present(predicted_profile(absurd, "Q8_0"))
    assert changed.prefill[1].tokens_per_s == pytest.approx(5 * 512.0)


def test_the_census_counts_what_a_token_goes_through() -> None:
    tensors = (
        GgufTensor("token_embd.weight", 8, (10, 100)),
        GgufTensor("blk.0.attn_norm.weight", 0, (10,)),
        GgufTensor("blk.0.attn_q.weight", 3, (20, 20)),
        GgufTensor("blk.0.ffn_up_exps.weight", 12, (10, 10, 8)),
        GgufTensor("output.weight", 14, (20, 100)),
    )
    values: dict[str, str | int | float] = {
        "general.architecture": "moe", "moe.expert_count": 8, "moe.expert_used_count": 2,
    }  # fmt: skip
    header = GgufHeader(3, len(tensors), dict(values), {}, tensors)
    assert set(count_weights(header)) == {
        Weights("Q4_1", 400.0),
        Weights("Q4_K", 200.0),
        Weights("Q6_K", 0.0, 2000.0),
    }
    tied = GgufHeader(3, 2, {"general.architecture": "x"}, {}, tensors[:2])
    assert count_weights(tied) == (Weights("Q8_0", 0.0, 1000.0),)


def test_only_formats_that_matter_are_tried() -> None:
    weights = (Weights("Q4_K", 900.0), Weights("Q6_K", 90.0), Weights("F32", 10.0))
    assert formats_to_measure(weights) == ("Q4_K", "Q6_K", "Q8_0")
    assert formats_to_measure((Weights("Q4_0", 900.0), Weights("Q6_K", 0.0, 90.0)))[1] == "Q6_K"


def points(rows: dict[str, tuple[float, float, float]]) -> tuple[FormatPoint, ...]:
    """Seconds for 10⁹ weights with 1, 8 and 256 rows, by format."""
    return tuple(
        FormatPoint(name, n_rows, took_s)
        for name, seconds in rows.items()
        for n_rows, took_s in zip((1, 8, 256), seconds, strict=True)
    )


# llama.cpp repacks Q4_0 and Q4_K with AVX2, not Q6_K and Q8_0; with NEON's dot products all four.
X86 = points({
    "Q4_0": (0.03, 0.07, 1.3), "Q4_K": (0.03, 0.08, 1.4), "MXFP4": (0.03, 0.07, 1.3),
    "Q4_1": (0.03, 0.16, 4.2), "Q6_K": (0.05, 0.15, 4.3), "Q8_0": (0.06, 0.1, 2.0),
    "F16": (0.09, 0.17, 4.0),
})  # fmt: skip
ARM = points({
    "Q4_0": (0.02, 0.06, 1.0), "Q4_K": (0.03, 0.07, 1.1), "Q6_K": (0.04, 0.09, 1.6),
    "Q4_1": (0.03, 0.16, 4.2), "Q8_0": (0.05, 0.1, 1.7),
})  # fmt: skip

# As Q4_K_M has them: most in Q4_K, some of each kind and the head in Q6_K.
MIXED = GgufHeader(3, 6, {}, {}, (
    GgufTensor("token_embd.weight", 14, (256, 512)),
    GgufTensor("output.weight", 14, (256, 512)),
    GgufTensor("blk.0.attn_norm.weight", 0, (256,)),
    GgufTensor("blk.0.attn_q.weight", 12, (256, 256)),
    GgufTensor("blk.0.attn_v.weight", 14, (256, 256)),
    GgufTensor("blk.0.ffn_gate_inp.weight", 1, (256, 8)),
))  # fmt: skip


def test_of_a_mixed_file_only_tensors_in_formats_that_measure_slow_change() -> None:
    assert slow_formats(X86) == SlowFormats(
        frozenset({"Q4_1", "Q6_K"}), frozenset({"Q4_1", "Q6_K"})
    )
    assert slow_tensors(MIXED, slow_formats(X86)) == {"output.weight", "blk.0.attn_v.weight"}
    assert slow_formats(ARM).layers == {"Q4_1"}, "the same file is quick there as it is"
    assert not slow_tensors(MIXED, slow_formats(ARM))


def test_a_head_is_judged_by_answers_alone() -> None:
    slow_at_prompts = points({"Q6_K": (0.05, 0.08, 4.3), "Q8_0": (0.06, 0.1, 4.2)})
    slow_in_steps = points({"Q6_K": (0.05, 0.5, 2.0), "Q8_0": (0.06, 0.1, 2.0)})
    assert slow_formats(slow_at_prompts) == SlowFormats()
    assert slow_tensors(MIXED, SlowFormats(head=frozenset({"Q6_K"}))) == {"output.weight"}
    assert "Q6_K" in slow_formats(slow_in_steps).head


def test_what_was_not_measured_is_not_slow() -> None:
    assert slow_formats(()) == SlowFormats()
    assert slow_formats(points({"Q6_K": (1.0, 1.0, 1.0)})) == SlowFormats()


def test_a_promise_counts_only_what_a_copy_would_change() -> None:
    mixed = replace(PROFILE, formats=X86, weights=(Weights("Q4_K", 80e6), Weights("Q6_K", 26e6)))
    gain = predicted_prompt_gain(mixed)
    assert gain == pytest.approx(0.5 / (0.5 - 0.026 * (4.3 - 2.0)))
    all_quick = replace(mixed, weights=(Weights("Q4_K", 106e6),))
    assert predicted_gain(all_quick, READING) == pytest.approx(1.0)
    everything = present(predicted_gain(all_quick, READING, "Q8_0"))
    assert everything < 1.0, "asked for by name, the quick ones would become slower"
