"""A model's own guesses are a help: they change nothing, and whatever goes wrong there are none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddock.engine.decoding import draft_prices, drafts
from paddock.engine.decoding.context_limits import MOST_MTP_SEQUENCES
from paddock.engine.decoding.drafts import HiddenStates
from paddock.engine.decoding.mtp_head import MtpHead, mtp_price
from paddock.engine.gguf import GgufHeader, GgufScalar, GgufTensor, read_header
from paddock.engine.llama.library import CacheFull, DecodeFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.settings import CacheLayout
from paddock.engine.system.records import replace
from tests.engine.decoding.test_loop import Bench, closed, job
from tests.fakes import tiny

__all__ = ["closed"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
BEGINNING = "What they all begin with, and what is read only once for all of them. " * 3
# After these the likeliest token of each answer is ahead of the next by at least 0.02 in logits,
# ten times what rounding moves them by where the processor, the batch or the cells differ.
SURE_ENDS = {
    "hy_v3": ("by", "ty", "hc", "sc"),
    "glm4moe": ("na", "ic", "ci", "kc"),
    "deepseek2": ("yk", "he", "va", "nc"),
    "qwen35": ("cy", "ek", "dn", "an"),
    "qwen35moe": ("bv", "av", "cn", "an"),
}
TEXTS = {
    kind: tuple(f"{BEGINNING}{end} and then" for end in ends) for kind, ends in SURE_ENDS.items()
}


@pytest.fixture(autouse=True)
def no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess nothing from prompts and other answers."""
    monkeypatch.setattr(drafts, "N_GRAM", 500)


@pytest.fixture(autouse=True)
def steady_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the price of a guess as it is before any step was timed: here the machine is busy."""
    monkeypatch.setattr(draft_prices, "_PRICE_WEIGHT", 0.0)


@pytest.fixture
def bench(tiny_model: Callable[[str], Model]) -> Iterator[Callable[..., Bench]]:
    heads: list[MtpHead] = []

    def make(kind: str, **extra: Any) -> Bench:
        heads.append(MtpHead(tiny_model(kind)))
        return Bench(tiny_model(kind), draft_model=heads[-1], **extra)

    yield make
    for head in heads:
        head.close()


def counts(bench: Bench) -> tuple[float, float]:
    """Return how many tokens were guessed, and how many of them were right."""
    return bench.total("drafted_tokens"), bench.total("accepted_tokens")


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_right_guesses_save_steps_and_come_from_the_states_of_their_own_tokens(
    bench: Callable[..., Bench], layout: CacheLayout
) -> None:
    guessing = bench("alphabet", layout=layout)
    model = guessing.model
    starts = ("wxyz", "some words: m", "a" * 300)
    texts = guessing.run(job(model, n, text, max_tokens=40) for n, text in enumerate(starts))
    assert texts == {
        number: (ALPHABET * 3)[ALPHABET.index(text[-1]) + 1 :][:40]
        for number, text in enumerate(starts)
    }
    n_guessed, n_right = counts(guessing)
    assert n_guessed == n_right > 60
    assert len(guessing.steps) < 20


@pytest.mark.parametrize("kind", SURE_ENDS)
@pytest.mark.parametrize("layout", ["unified", "split"])
def test_answers_are_the_same_with_and_without_guesses(
    bench: Callable[..., Bench], kind: str, layout: CacheLayout
) -> None:
    guessing = bench(kind, layout=layout)
    model = guessing.model
    plain = Bench(model, layout)
    texts = list(enumerate(TEXTS[kind]))
    answers = guessing.run(job(model, n, text, max_tokens=30) for n, text in texts)
    assert answers == plain.run(
        job(model, n, text, max_tokens=30, drafts=False) for n, text in texts
    )
    assert counts(guessing)[0] > 8
    longer = f"{TEXTS[kind][1]}{answers[1]} on"  # a prefix is read already
    later = [job(model, 9, longer, max_tokens=30)]
    again = [job(model, 9, longer, max_tokens=30, drafts=False)]
    assert guessing.run(later) == Bench(model).run(again)
    if model.memory == "cells":
        assert guessing.usages[9]["prompt_reused_tokens"] > 200
    assert guessing.usages[9]["drafted_tokens"] > 0


@pytest.mark.parametrize("kind", ["qwen35", "qwen35moe"])
@pytest.mark.parametrize("layout", ["unified", "split"])
def test_a_hybrid_model_keeps_right_guesses_and_undoes_wrong_ones(
    bench: Callable[..., Bench],
    tiny_model: Callable[[str], Model],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    layout: CacheLayout,
) -> None:
    model, text = tiny_model(kind), TEXTS[kind][0]
    plain = Bench(model, layout).run([job(model, 0, text, max_tokens=30, drafts=False)])
    right = greedy_tokens(model, text, 40)

    def two_right_and_one_wrong(
        _: MtpHead, read: list[HiddenStates], *__: object
    ) -> dict[int, list[int]]:
        known = {states.request_id: len(states.tokens) for states in read}
        return {
            number: [*right[n : n + 2], (right[n + 2] + 1) % 256] for number, n in known.items()
        }

    monkeypatch.setattr(MtpHead, "guess", two_right_and_one_wrong)
    guessing = bench(kind, layout=layout)
    assert guessing.run([job(model, 0, text, max_tokens=30)]) == plain
    n_guessed, n_right = counts(guessing)
    assert 0 < n_guessed / 3 <= n_right / 2 < 30
    assert guessing.cache.limits.n_undo_tokens == drafts.MOST_MTP_TOKENS


def greedy_tokens(model: Model, text: str, n: int) -> list[int]:
    """Return a prompt's tokens and `n` likeliest ones after it."""
    prompt = model.tokenise(text, with_special=True, parse_special=False)
    tokens: list[int] = prompt.tolist()
    piece = prompt
    with Context(model, ContextOptions(1024, 512, 1, 1)) as context:
        for _ in range(n):
            pos = np.arange(len(tokens) - len(piece), len(tokens), dtype=np.int32)
            output_mask = (pos == pos[-1]).astype(np.int8)
            context.decode(piece, pos, np.zeros(len(piece), np.int32), output_mask)
            piece = np.array([context.logits(1)[0].argmax()], np.int32)
            tokens += piece.tolist()
    return tokens


def test_preempted_requests_say_the_same_in_the_end(bench: Callable[..., Bench]) -> None:
    guessing = bench("alphabet", n_cells=768)
    model = guessing.model
    texts = guessing.run(job(model, n, "a" * (100 + n), max_tokens=180) for n in range(4))
    assert set(texts.values()) == {(ALPHABET * 9)[1:181]}
    assert guessing.total("n_preempted") > 0
    n_guessed, n_right = counts(guessing)
    assert n_guessed > 0.97 * n_right > 0


def test_there_are_no_guesses_while_many_run_and_again_when_few_are_left(
    bench: Callable[..., Bench],
) -> None:
    guessing = bench("alphabet", n_parallel=8)
    model = guessing.model
    n_many = MOST_MTP_SEQUENCES + 1
    texts = guessing.run(job(model, n, "a", max_tokens=20 + 20 * (not n)) for n in range(n_many))
    assert {text[:20] for text in texts.values()} == {ALPHABET[1:21]}
    assert [guessing.usages[n]["drafted_tokens"] for n in range(1, n_many)] == [0] * (n_many - 1)
    assert guessing.usages[0]["accepted_tokens"] > 8


def test_a_guess_costs_the_head_and_a_layer_of_what_a_token_uses() -> None:
    def tensor(name: str, n_rows: int) -> GgufTensor:
        return GgufTensor(name, 0, (100, n_rows))

    tensors = (
        tensor("token_embd.weight", 50), tensor("output.weight", 50),
        tensor("blk.0.attn_q.weight", 100), tensor("blk.1.ffn_up_exps.weight", 400),
    )  # fmt: skip
    sizes = {"block_count": 2, "expert_count": 8, "expert_used_count": 2}
    values: dict[str, GgufScalar] = {"general.architecture": "x"}
    values |= {f"x.{name}": n for name, n in sizes.items()}
    assert mtp_price(GgufHeader(3, 4, values, {}, tensors)) == pytest.approx(150 / 250)


@pytest.mark.parametrize("error", [CacheFull(), DecodeFailed("llama_decode answered -3")])
def test_a_fault_of_the_head_leaves_the_answers_as_they_are(
    bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    decode, n_left = Context.decode, [3]

    def fail(self: Context, *args: Any) -> int:
        if self.options.is_mtp:
            n_left[0] -= 1
            if n_left[0] == 0:
                raise error
        return decode(self, *args)

    monkeypatch.setattr(Context, "decode", fail)
    guessing = bench("alphabet")
    assert guessing.run([job(guessing.model, 0, "a", max_tokens=60)]) == {0: (ALPHABET * 3)[1:61]}
    goes_on = isinstance(error, CacheFull)
    assert (guessing.usages[0]["accepted_tokens"] > 20) == goes_on
    message = "the model guesses no tokens any more: llama_decode answered -3"
    assert (message in capfd.readouterr().err) == (not goes_on)


def test_only_heads_that_were_tried_and_are_complete_are_used(tmp_path: Path) -> None:
    header = read_header(tiny.hy_v3(tmp_path / "own.gguf"))
    assert header.has_mtp
    assert read_header(tiny.glm4moe(tmp_path / "experts.gguf")).has_mtp
    latent = read_header(tiny.deepseek2(tmp_path / "latent.gguf"))
    assert latent.has_mtp
    old = {key: value for key, value in latent.values.items() if not key.endswith("_mla")}
    assert not replace(latent, values=old).has_mtp, "without the tensors that its graph needs"
    assert not read_header(tiny.llama(tmp_path / "llama.gguf")).has_mtp
    without = [tensor for tensor in header.tensors if "nextn" not in tensor.name]
    assert not replace(header, tensors=tuple(without)).has_mtp
    for key, value in (("hy_v3.nextn_predict_layers", 2), ("general.architecture", "qwen35")):
        assert not replace(header, values={**header.values, key: value}).has_mtp
