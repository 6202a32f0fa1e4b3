"""Confidence with the bundled model, on what it can do: choosing one of three labels."""

import asyncio
import json
from pathlib import Path

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.llama.quantise import quantise
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Reply
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.steps.llm.confidence import N_ALTERNATIVES, confidence

TOPICS = ("sport", "food", "weather")
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": list(TOPICS)}},
    "required": ["topic"],
    "additionalProperties": False,
}
TURNS = [
    ("The goalkeeper saved a penalty.", "sport"),
    ("Fry the eggs with a little oil.", "food"),
    ("A storm with hail is coming.", "weather"),
    ("It will rain in Oslo until the evening. Lunch will be served after the match.", ""),
]
MESSAGES = [
    message
    for text, topic in TURNS
    for message in (
        Message("user", f"Text: {text}\nTopic?"),
        Message("assistant", json.dumps({"topic": topic}, separators=(",", ":"))),
    )
][:-1]


def labelled(reply: Reply) -> tuple[str, float]:
    output = json.loads(reply.text)
    field = confidence(reply.text, reply.logprobs, output, SCHEMA)["topic"]
    assert field["second"] in {*TOPICS} - {output["topic"]}, "each token leaves one other that fits"
    assert 0 < field["second_p"] <= 1.001 - field["raw"]
    return output["topic"], field["raw"]


def test_the_same_label_has_the_same_probability_however_it_came(tmp_path: Path) -> None:
    """Greedy, sampled, with drafts and without, alone and in company: it is the model's own.

    In 16 bits: kernels for 4 bits round by how many rows a batch has, by 0.08 on a Xeon with AMX.
    """
    model = tmp_path / "model.gguf"
    own = ModelFinder(tmp_path, tmp_path).find("smollm2:135m").path
    quantise(Path(own), model, "F16", 2)
    spec = ModelSpec(str(model), n_ctx_tokens=2048)
    form = Constraint("json_schema", json.dumps(SCHEMA))
    params = {"temperature": 0, "max_tokens": 24}
    greedy = ChatRequest(spec, tuple(MESSAGES), params, constraint=form, n_logprobs=N_ALTERNATIVES)
    sampled = [
        replace(greedy, params={**params, "temperature": 4, "top_p": 1, "seed": seed})
        for seed in range(8)
    ]

    async def work() -> tuple[list[Reply], list[Reply]]:
        settings = PoolSettings(n_threads=1, models_dir=tmp_path / "none", profile_s=0)
        async with LocalPool(settings) as pool:
            requests = [greedy, replace(greedy, drafts=False), *sampled]
            alone = [await pool.chat(request).reply() for request in requests]
            return alone, await asyncio.gather(*(pool.chat(one).reply() for one in requests[-6:]))

    alone, together = (list(map(labelled, replies)) for replies in asyncio.run(work()))
    found = dict(alone)
    for label, p in alone:
        assert found[label] == pytest.approx(p, abs=0.002)
    assert len(found) == len(TOPICS), found
    assert sum(found.values()) == pytest.approx(1, abs=0.01), found
    assert alone[0][0] == alone[1][0]
    for label, p in together:
        assert p == pytest.approx(found[label], abs=0.01)
