from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.errors import TextRefused
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import Switch
from paddock.engine.workers.embed_queue import EmbedPiece, EmbedQueue
from paddock.engine.workers.embed_service import Embedder, TextReader, text_vectors

WORDS = ["the", "harbour", "was", "quiet", "until", "seven", "boats", "of", "herring", "came"]


def embedded(embedder: Embedder, texts: Sequence[Tokens], is_flash: bool) -> Vectors:
    line = EmbedQueue(embedder.n_most_pieces, is_flash=is_flash)
    line.add([EmbedPiece(0, number, tokens) for number, tokens in enumerate(texts)], "normal")
    rows: dict[int, Vectors] = {}
    while len(line):
        batch = line.next_batch()
        for piece, row in zip(batch.pieces, embedder.compute(batch), strict=True):
            rows[piece.number] = row
    ordered = np.stack([rows[number] for number in range(len(texts))])
    return text_vectors(ordered, [len(text) for text in texts], [1] * len(texts), None)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_a_text_has_the_vector_that_it_has_alone_in_any_company(flash: Switch) -> None:
    model = Model(ModelFinder(Path("/nonexistent"), Path("/nonexistent")).locate("all-minilm").path)
    reader = TextReader(model)
    chance = np.random.default_rng(7)
    n_words = [1, 2, 3, 5, 8, 11, 13, 14, 15, 17, 21, 29, 30, 33, 47, 61, 62, 63, 90, 130, 200, 490]
    texts = [" ".join(chance.choice(WORDS, n)) for n in n_words]
    tokens = [text.pieces[0] for text in reader.read(texts, 512)]
    options = ContextOptions(
        n_ctx_tokens=512,
        n_batch_tokens=512,
        n_seq_max=64,
        n_threads=1,
        embeds=True,
        flash_attention=flash,
    )
    with Context(model, options) as context:
        embedder = Embedder(context)
        together = embedded(embedder, tokens, flash == "on")
        alone = np.concatenate([embedded(embedder, [token], flash == "on") for token in tokens])
    assert np.abs(together - alone).max() < 1e-6, "1e-3 is promised, and 1e-7 is what comes"
    model.close()


def test_parts_weigh_by_their_tokens_and_what_is_cut_is_normalised_again() -> None:
    rows = np.array([[0, 3, 4], [2, 0, 0], [0, 5, 0]], np.float32)
    vectors = text_vectors(rows, [7, 30, 10], [1, 2], None)
    mean = np.array([30, 10, 0]) / np.hypot(30, 10)
    assert np.allclose(vectors, [[0, 0.6, 0.8], mean])
    assert np.allclose(text_vectors(rows[:1], [7], [1], 2), [[0, 1]])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([np.nan, 1.0], "text 1 got a vector that holds NaN or Inf"),
        ([np.inf, 1.0], "text 1 got a vector that holds NaN or Inf"),
        ([0.0, 0.0], "text 1 got a vector of length 0"),
    ],
)
def test_a_vector_that_is_none_is_refused_by_its_text(bad: list[float], why: str) -> None:
    rows = np.array([[1, 0], [1, 0], bad], np.float32)
    with pytest.raises(TextRefused) as caught:
        text_vectors(rows, [5, 5, 5], [1, 2], None)
    assert str(caught.value) == why
    assert caught.value.index == 1
