"""Ollama's embeddings: order, norm, dimensions, and what is said of texts that are too long."""

import math
from typing import Any

import httpx
import pytest

from tests.conformance.rows import Row, check

VECTORS = "all-minilm"


def embed(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/embed", json={"model": VECTORS, **body})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert isinstance(told, dict)
    return told


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_vectors_come_in_order_and_are_normalised(client: httpx.Client) -> None:
    texts = ["a cat", "a kitten", "the stock exchange"]
    told = embed(client, input=texts)
    assert told["model"] == VECTORS
    assert told["prompt_eval_count"] > 3
    assert told["total_duration"] > 0
    assert [len(one) for one in told["embeddings"]] == [384] * 3
    assert all(length(one) == pytest.approx(1, abs=1e-5) for one in told["embeddings"])
    cat, kitten, market = told["embeddings"]
    assert likeness(cat, kitten) > likeness(cat, market)
    [alone] = embed(client, input="a kitten")["embeddings"]
    assert likeness(alone, kitten) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": []}, {"input": None}])
def test_nothing_to_embed_loads_the_model(client: httpx.Client, nothing: dict[str, Any]) -> None:
    assert embed(client, **nothing) == {"model": VECTORS, "embeddings": []}


def test_an_empty_text_among_others_has_a_vector(client: httpx.Client) -> None:
    assert len(embed(client, input=["", "a"])["embeddings"]) == 2


def test_dimensions_cut_and_normalise_again(client: httpx.Client) -> None:
    [whole] = embed(client, input="a cat")["embeddings"]
    [short] = embed(client, input="a cat", dimensions=64)["embeddings"]
    assert len(short) == 64
    assert length(short) == pytest.approx(1, abs=1e-5)
    head = whole[:64]
    assert likeness(short, head) == pytest.approx(length(head), abs=1e-4)
    for n, is_obeyed in ((0, True), (384, True), (-1, False), (5000, False)):
        answer = client.post("/api/embed", json={"model": VECTORS, "input": "a", "dimensions": n})
        assert len(answer.json()["embeddings"][0]) == 384
        assert ("fields without effect: dimensions" in str(answer.headers)) is not is_obeyed


def test_a_text_that_was_cut_is_told(client: httpx.Client) -> None:
    answer = client.post("/api/embed", json={"model": VECTORS, "input": ["a", "word " * 2000]})
    told = answer.json()
    assert len(told["embeddings"]) == 2
    assert told["truncated"] is True
    assert told["prompt_tokens_original"] > 2000 > told["prompt_eval_count"]
    assert answer.headers["warning"].startswith("299 paddock ")
    assert "truncated" not in embed(client, input="a")


def test_the_older_endpoint_gives_one_vector(client: httpx.Client) -> None:
    answer = client.post("/api/embeddings", json={"model": VECTORS, "prompt": "a cat"})
    assert set(answer.json()) == {"embedding"}
    assert len(answer.json()["embedding"]) == 384
    check(client, Row("nothing", "POST /api/embeddings", {"model": VECTORS, "prompt": ""}, 200,
                      {"embedding": []}))  # fmt: skip
