"""How likely each answer is, over HTTP: OpenAI's and Ollama's own clients, a pool elsewhere."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest

from paddock.engine.backends.model_servers import OpenAIServer
from paddock.engine.backends.openai_client import ServerConnection
from paddock.engine.errors import ModelBroken
from paddock.engine.request import ChatRequest, Message, ModelSpec, answer_shares
from paddock.engine.system.server_address import ServerAddress
from tests.conformance.openai_client import speaking_to
from tests.fakes.openai_server import OpenAIService
from tests.live import CHAT, Live

NOTE = "The rain will not stop before Friday, and the wind on the coast gets stronger."
LABELS = ("weather", "sport", "food")


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with speaking_to(live) as client:
        yield client


def test_questions_of_openais_client_are_answered_in_their_order(client: openai.OpenAI) -> None:
    choices: Any = [{"value": label, "description": f"about {label}"} for label in LABELS]
    parts = [{"type": "input_text", "text": NOTE * 5}, {"type": "input_json", "data": {"pages": 1}}]
    turns: Any = [{"role": "system", "content": "You sort notes."},
                  {"role": "user", "content": parts}]  # fmt: skip
    decision = client.decisions.create(
        model=CHAT,
        input=turns,
        questions=[
            {"type": "choice", "name": "topic", "instructions": "What is it about?",
             "choices": choices},
            {"type": "predicate", "instructions": "It names a day."},
            {"type": "score", "name": "wet", "instructions": [{"type": "input_text", "text": "How "
             "wet is it?"}], "levels": [{"label": "dry"}, {"label": "damp"}, {"label": "wet"}]},
            {"type": "choice", "instructions": "Is it long?",
             "choices": [{"value": True}, {"value": "true enough"}, {"value": False}]},
        ],
    )  # fmt: skip
    topic, day, wet, long = decision.answers
    assert topic.type == "choice" and (topic.name, topic.choice in LABELS) == ("topic", True)
    assert [entry.value for entry in topic.probabilities] == list(LABELS)
    assert sum(entry.probability for entry in topic.probabilities) == pytest.approx(1)
    assert topic.confidence == max(entry.probability for entry in topic.probabilities)
    assert day.type == "predicate" and 0 < day.probability < 1 and day.name is None
    assert wet.type == "score" and 0 < wet.score < 2
    assert [(entry.label, entry.value) for entry in wet.probabilities] == [
        ("dry", 0), ("damp", 1), ("wet", 2),
    ]  # fmt: skip
    assert long.type == "choice" and isinstance(long.probabilities[0].value, bool)
    usage = decision.usage
    assert decision.model == CHAT and usage.total_tokens == usage.input_tokens + usage.output_tokens
    # Other questions wait for an input whose rest is worth it (32 tokens); a shorter one may be
    # computed by each.
    assert usage.input_tokens_details.cached_tokens > 3 * 90, "the input is read once"


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": "a"}]}]},
         "questions[0]"),
        ({"questions": [{"type": "choice", "instructions": "?",
                         "choices": [{"value": "a"}, {"value": "a"}]}]}, "questions[0]"),
        ({"questions": [{"type": "guess", "instructions": "?"}]}, "questions[0].type"),
        ({"model": "no-such-model"}, "model"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused(
    client: openai.OpenAI, changed: dict[str, Any], param: str
) -> None:
    asked: Any = {"model": CHAT, "input": NOTE,
                  "questions": [{"type": "predicate", "instructions": "It rains."}]}  # fmt: skip
    with pytest.raises(openai.APIStatusError) as caught:
        client.decisions.create(**{**asked, **changed})
    assert caught.value.status_code in (400, 404)
    assert isinstance(caught.value.body, dict) and caught.value.body["param"] == param


def test_ollamas_client_asks_by_names(live: Live) -> None:
    client = ollama.Client(live.url, trust_env=False)
    answer = client.systemone(
        CHAT,
        {"note": NOTE},
        {
            "topic": {"type": "choice", "instructions": "What is it about?",
                      "criteria": {"weather": "rain and wind", "sport": None}},
            "day": {"type": "noul", "instructions": "It names a day.",
                    "criteria": {"true": "a day is named"}},
            "wet": {"type": "score", "instructions": ["How wet?"], "criteria": ["dry", "wet"]},
        },
        keep_alive="5m",
    )  # fmt: skip
    topic, day, wet = (answer.answers[name] for name in ("topic", "day", "wet"))
    assert set(topic["probabilities"]) == {"weather", "sport"}
    assert topic["choice"] == max(topic["probabilities"], key=topic["probabilities"].get)
    assert 0 < day["noul"] < 1
    assert wet["legend"] == {"0": "dry", "1": "wet"}
    assert wet["score"] == pytest.approx(wet["probabilities"]["1"])
    assert answer.usage.input_tokens > 0
    with pytest.raises(ollama.ResponseError) as caught:
        client.systemone("no-such-model", NOTE, {"a": {"type": "noul", "instructions": "?"}})
    assert caught.value.status_code == 404
    client._client.close()


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/systemone"])
def test_a_server_elsewhere_is_asked_by_the_wire_that_it_has(live: Live, path: str) -> None:
    """Both are this service's, which another pool asks as any server."""
    answers = LABELS
    request = ChatRequest(
        ModelSpec(CHAT, n_ctx_tokens=2048), (Message("user", NOTE),), answers=answers
    )

    class OneWire(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path in {"/v1/decisions", "/v1/systemone"} - {path}:
                return httpx.Response(404)
            return await super().handle_async_request(request)

    async def ask() -> list[float]:
        line = ServerConnection(ServerAddress(live.url, ""), transport=OneWire())
        server = OpenAIServer(line, note=print)
        ended = await server.chat(request, lambda chunk: None)
        await server.aclose()
        assert ended.usage.prompt_tokens > 20
        return answer_shares(ended.scores)

    shares = asyncio.run(ask())
    assert math.isclose(sum(shares), 1) and len(shares) == len(answers)


def test_a_server_without_such_a_wire_is_refused_in_a_sentence() -> None:
    async def ask() -> None:
        line = ServerConnection(
            ServerAddress("http://far:1", ""), transport=OpenAIService().transport
        )
        server = OpenAIServer(line, note=print)
        spec = ModelSpec("m", n_ctx_tokens=2048)
        try:
            await server.chat(ChatRequest(spec, (Message("user", "a"),), answers=("b",)), print)
        finally:
            await server.aclose()

    with pytest.raises(ModelBroken, match="no /v1/decisions and no /v1/systemone"):
        asyncio.run(ask())
