"""Bias, penalties, constraints and circles, in their order."""

import json

import numpy as np
import pytest

from paddock.engine.arrays import Logits
from paddock.engine.llama.samplers import SamplerChain
from paddock.engine.request import Constraint, Sampling
from paddock.engine.sampling.picker import Picker, start_masks
from tests.engine.sampling.world import model, picker, tokens


def row(*likely: str) -> Logits:
    """Return logits in which the first token of each text is likely, the first the most."""
    made = np.zeros(model().n_vocab, np.float32)
    for rank, text in enumerate(likely):
        made[tokens(text)[0]] = 20 - rank
    return made


def chosen(row_picker: Picker, logits: Logits) -> str:
    return model().piece(row_picker.pick(logits).token).decode()


def test_a_bias_is_added_and_minus_100_forbids() -> None:
    a, b = tokens("apple")[0], tokens("bread")[0]
    assert chosen(picker(None, sampling=Sampling(logit_bias={b: 2.0})), row("apple", "bread")) == (
        model().piece(b).decode()
    )
    forbidding = Sampling(logit_bias={a: -100.0})
    assert chosen(picker(None, sampling=forbidding), row("apple", "bread")) != "apple"


def test_the_constraint_goes_before_the_bias() -> None:
    yes = tokens("yes")[0]
    row_picker = picker(Constraint("regex", "yes"), sampling=Sampling(logit_bias={yes: -100.0}))
    assert chosen(row_picker, row("no")) in ("y", "ye", "yes")


@pytest.mark.parametrize("kind", ["[ab]+", "(?s:.*)", "[0-9]{3,}x"])
def test_among_allowed_tokens_the_choice_is_that_of_the_masked_row(kind: str) -> None:
    random = np.random.default_rng(0)
    sampled = Sampling(temperature=0.8, seed=5, guards_repetition=False)
    greedy, drawing = (
        picker(Constraint("regex", kind), sampling=sampling) for sampling in (Sampling(), sampled)
    )
    whole = SamplerChain(sampled)
    for _ in range(40):
        row = random.standard_normal(model().n_vocab, np.float32)
        assert greedy.constrained is not None
        assert drawing.constrained is not None
        best = int(greedy.constrained.masked(row).argmax())
        drawn = whole.pick_of_all(drawing.constrained.masked(row))
        assert greedy.pick(row).token == best
        assert drawing.pick(row).token == drawn
    whole.close()


def test_masks_are_made_ahead_where_they_will_be_needed() -> None:
    words = Constraint("regex", "[a-z]+")
    greedy = [picker(words) for _ in range(4)]
    sampled = [picker(words, sampling=Sampling(temperature=1.0)) for _ in range(4)]

    def n_begun(pickers: list[Picker]) -> int:
        return sum(
            picker.constrained is not None and picker.constrained.matcher.has_mask
            for picker in pickers
        )

    start_masks([*greedy, *sampled], has_idle_cores=False)
    assert (n_begun(greedy), n_begun(sampled)) == (0, 4)
    start_masks(greedy)
    assert n_begun(greedy) == 4


def circling(row_picker: Picker, text: str, most: int, before: str = "") -> tuple[str, str]:
    """Return the answer of a model that repeats itself, and why it ended."""
    first, circle, answer = tokens(before), tokens(text), ""
    for number in range(most):
        logits = np.zeros(model().n_vocab, np.float32)
        later = number - len(first)
        logits[first[number] if later < 0 else circle[later % len(circle)]] = 20
        choice = row_picker.pick(logits)
        if not model().ends_generation(choice.token):
            answer += model().piece(choice.token).decode()
        if choice.ends:
            return answer, choice.ends
    return answer, "length"


def test_an_answer_in_circles_is_ended_unless_that_is_wanted() -> None:
    text = " the quick brown fox and"
    assert circling(picker(None), text, 900)[1] == "repetition"
    unguarded = picker(None, sampling=Sampling(guards_repetition=False))
    assert circling(unguarded, text, 900)[1] == "length"


def test_a_circle_within_a_text_of_a_constrained_answer_is_led_out_of() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    }
    row_picker = picker(Constraint("json_schema", json.dumps(schema)), 900)
    answer, ends = circling(row_picker, " the quick brown fox and", 900)
    value = json.loads(answer)
    assert ends == "stop"
    assert row_picker.is_shortened
    assert len(value["a"]) > 500


def test_a_list_in_circles_is_closed() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"a": {"enum": [1]}}}}
    row_picker = picker(Constraint("json_schema", json.dumps(schema)), 3000)
    answer, ends = circling(row_picker, '{"a":1},', 3000, before="[")
    assert ends == "stop"
    assert row_picker.is_shortened
    assert 20 < len(json.loads(answer)) < 200


def test_a_circle_that_a_grammar_cannot_leave_is_ended_whole() -> None:
    row_picker = picker(Constraint("regex", "(la)*(end)?"), 3000)
    answer, ends = circling(row_picker, "la", 3000)
    assert ends == "repetition"
    assert answer.removesuffix("end").replace("la", "") == ""
