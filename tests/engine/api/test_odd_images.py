"""Images that cannot be read are refused in a sentence by both APIs; odd ones are seen."""

import base64

import httpx
import pytest

from tests.fakes.eyes import llava, write_family
from tests.fakes.odd_images import REFUSED, SEEN
from tests.live import Live

WIDTH_OF_ANOTHER = 128


@pytest.fixture(scope="module")
def seeing(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Return the service with a model that sees, a blind one, and one with a wrong projector."""
    folder = tmp_path_factory.mktemp("eyes")
    model, projector = write_family("llava", folder)
    wide = llava(folder / "mmproj-wide.gguf", WIDTH_OF_ANOTHER)
    files = {"seeing": (model, projector), "blind": (model,), "mismatched": (model, wide)}
    for name, parts in files.items():
        live.add_model(name, *parts)
    return live


def ask_ollama(live: Live, image: bytes, model: str = "seeing") -> httpx.Response:
    message = {"role": "user", "content": "?", "images": [base64.b64encode(image).decode()]}
    body = {"model": model, "messages": [message], "stream": False, "options": {"num_predict": 1}}
    with live.client() as client:
        return client.post("/api/chat", json=body)


def ask_openai(live: Live, image: bytes, model: str = "seeing") -> httpx.Response:
    address = "data:image/png;base64," + base64.b64encode(image).decode()
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": address}}]
    message = {"role": "user", "content": parts}
    with live.client() as client:
        return client.post(
            "/v1/chat/completions", json={"model": model, "messages": [message], "max_tokens": 1}
        )


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_cannot_be_read_is_refused_in_a_sentence(seeing: Live, name: str) -> None:
    data, sentence = REFUSED[name]
    ollama, openai = ask_ollama(seeing, data), ask_openai(seeing, data)
    assert (ollama.status_code, ollama.json()) == (400, {"error": f"image 1 {sentence}"})
    assert (openai.status_code, openai.json()["error"]["message"]) == (400, f"image 1 {sentence}")


@pytest.mark.parametrize("name", SEEN)
def test_an_odd_image_is_seen(seeing: Live, name: str) -> None:
    answers = ask_ollama(seeing, SEEN[name]), ask_openai(seeing, SEEN[name])
    assert [answer.status_code for answer in answers] == [200, 200]
    assert seeing.n_deaths() == 0


@pytest.mark.parametrize(
    ("model", "status", "sentence"),
    [
        ("blind", 400, "model 'blind:latest' cannot see images: it has no projector"),
        ("mismatched", 500, f"(n_embd = 64) and mmproj (n_embd = {WIDTH_OF_ANOTHER})"),
    ],
)
def test_a_model_without_eyes_or_with_those_of_another_says_so(
    seeing: Live, model: str, status: int, sentence: str
) -> None:
    for ask in (ask_ollama, ask_openai):
        answer = ask(seeing, SEEN["plain.png"], model)
        assert answer.status_code == status
        assert sentence in str(answer.json()["error"])
