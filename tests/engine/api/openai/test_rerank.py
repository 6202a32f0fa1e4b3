"""POST /v1/rerank with a tiny model; its scores are those of llama-server for the same file."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import tiny
from tests.live import live_service

QUERY = "what is a panda?"
DOCUMENTS = [
    "it is a bear. it eats bamboo.",
    "hi",
    "the giant panda is a bear species endemic to china.",
]
LLAMA_SERVERS = [0.3663553297519684, 0.4814293682575226, 0.23017187416553497]
"""Of llama-server --rerank at the version of llama-cpp-python 0.3.36, on a processor with AVX2."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a service that has a reranker, and an embedder of the same weights."""
    root = tmp_path_factory.mktemp("rerank")
    with live_service(root) as live, live.client() as client:
        for name, pooling in (("ranker", 4), ("vectors", 1)):
            live.add_model(name, tiny.reranker(root / f"{name}.gguf", pooling=pooling))
        yield client


def ask(client: httpx.Client, path: str = "/v1/rerank", **extra: Any) -> httpx.Response:
    return client.post(
        path, json={"model": "ranker", "query": QUERY, "documents": DOCUMENTS, **extra}
    )


def test_documents_are_scored_as_by_llama_server_the_best_first(client: httpx.Client) -> None:
    answer = ask(client).json()
    assert answer["usage"]["prompt_tokens"] == 112
    results = answer["results"]
    assert [result["index"] for result in results] == [1, 0, 2]
    for result in results:
        assert result["relevance_score"] == pytest.approx(LLAMA_SERVERS[result["index"]], abs=1e-4)


@pytest.mark.parametrize("path", ["/rerank", "/v1/reranking", "/reranking"])
def test_the_other_paths_answer_alike(client: httpx.Client, path: str) -> None:
    assert ask(client, path).json()["results"] == ask(client).json()["results"]


def test_only_the_best_are_returned_where_that_is_asked_with_their_texts(
    client: httpx.Client,
) -> None:
    given = [{"text": text} for text in DOCUMENTS]
    results = ask(client, documents=given, top_n=1, return_documents=True).json()["results"]
    assert [result["document"]["text"] for result in results] == ["hi"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"documents": []}, "Invalid value for 'documents': at least one document is needed"),
        ({"documents": [7]},
         "Invalid value for 'documents[0]': a document is a string or has a `text`"),
        ({"documents": ["a b " * 300]},
         "This model's maximum context length is 512 tokens. However, input 0 has 615 tokens. "
         'Please shorten it, or ask for `"truncate": true`.'),
        ({"model": "vectors"}, '"vectors" does not support rerank'),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_refused(
    client: httpx.Client, sent: dict[str, Any], message: str
) -> None:
    answer = ask(client, **sent)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_a_long_document_is_cut_where_that_is_asked(client: httpx.Client) -> None:
    answer = ask(client, documents=["a b " * 300], truncate=True).json()
    assert answer["usage"]["prompt_tokens"] == 512


def test_a_reranker_makes_no_vectors_and_writes_no_text(client: httpx.Client) -> None:
    hint = ": it is a reranker, which scores documents (POST /v1/rerank)"
    chat = {"model": "ranker", "messages": [{"role": "user", "content": "Hi"}]}
    for path, body, what in (
        ("/api/embed", {"model": "ranker", "input": "Hi"}, "embeddings"),
        ("/v1/chat/completions", chat, "chat"),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        message = error if isinstance(error, str) else error["message"]
        assert message == f'"ranker" does not support {what}{hint}', path


def test_show_and_tags_say_what_it_is(client: httpx.Client) -> None:
    shown = client.post("/api/show", json={"model": "ranker"}).json()
    assert shown["capabilities"] == ["rerank"]
