from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.errors import TextTooLong
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.workers.embed_service import TextReader, split_tokens
from tests.fakes import tiny


@given(st.lists(st.sampled_from([" a", "b", " c.", "d", " e"]), min_size=1), st.integers(1, 20))
def test_a_split_loses_nothing_and_keeps_to_the_room(words: list[str], room: int) -> None:
    parts = split_tokens(words, room)
    assert [i for begin, end in parts for i in range(begin, end)] == list(range(len(words)))
    assert all(0 < end - begin <= room for begin, end in parts)


def test_a_split_prefers_the_end_of_a_sentence_then_that_of_a_word() -> None:
    words = [" one", " two", " three", " four", " five.", " six", " se", "ven", " eight", " nine"]
    assert split_tokens(words, 6) == [(0, 5), (5, 10)]
    assert split_tokens([" a"] * 6 + [" b", "c", "d"] + [" e"] * 7, 8) == [
        (0, 6),
        (6, 11),
        (11, 16),
    ]


def test_parts_wear_what_the_model_puts_around_a_text() -> None:
    model = Model(ModelFinder(Path("/nonexistent"), Path("/nonexistent")).locate("all-minilm").path)
    reader = TextReader(model)
    text = "The boat leaves at nine. " * 20
    (whole,) = reader.read([text], 512, "split")[0].pieces
    parts = reader.read([text], 50, "split")[0].pieces
    first, last = whole[:1], whole[-1:]
    assert len(parts) == 3
    for part in parts:
        assert len(part) <= 50
        assert (part[:1], part[-1:]) == (first, last)
    assert np.array_equal(np.concatenate([part[1:-1] for part in parts]), whole[1:-1])
    assert [len(text.pieces) for text in reader.read(["", " "], 512)] == [1, 1]
    short, cut = reader.read(["short", text], 50, "cut")
    assert (short.n_cut, cut.n_cut) == (0, len(whole) - 50)
    assert np.array_equal(cut.pieces[0], np.concatenate([whole[:49], last]))
    with pytest.raises(TextTooLong) as caught:
        reader.read(["short", text], 50)
    assert (caught.value.index, caught.value.n_tokens) == (1, len(whole))
    model.close()


def test_how_much_of_a_text_a_vocabulary_lacks_is_known() -> None:
    model = Model(ModelFinder(Path("/nonexistent"), Path("/nonexistent")).locate("all-minilm").path)
    # Accents and capitals are no loss; that of Thai is whole, of Korean and Hindi the vowels'.
    whole = ["Hello", "Été à Zürich", "Ελληνικά", "Привет", "שָׁלוֹם", "مرحبا", "中文", "Tiếng Việt",
             "Straße", "ﬁne", "🙂 ② ½", "", "A\u200bé"]  # fmt: skip
    lacking = {
        "강": 2 / 3,
        "곰": 2 / 3,
        "दिन": 1 / 3,
        "दान": 1 / 3,
        "ภาษาไทย": 1,
        "Thai แมว": 3 / 7,
    }
    read = TextReader(model).read([*whole, *lacking], 512)
    shares = [text.unknown_share for text in read]
    assert shares == pytest.approx([0] * len(whole) + list(lacking.values()))
    model.close()


FORM = "[CLS] q {query} d {document}[SEP] {query}?[SEP]"


@pytest.fixture(scope="module")
def with_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Return a reranker whose file has a form for a pair."""
    path = tmp_path_factory.mktemp("rerank") / "ranker.gguf"
    model = Model(tiny.reranker(path, template=FORM), ModelOptions(n_gpu_layers=0))
    yield model
    model.close()


def tokens_of(model: Model, text: str) -> list[int]:
    return [*map(int, model.tokenise(text, with_special=False, parse_special=True))]


def test_a_template_keeps_its_end_when_the_document_is_cut(with_template: Model) -> None:
    reader, model = TextReader(with_template), with_template
    short, long = reader.read_pairs("x", ["a b", "a b " * 20], 20, "cut")
    assert short.pieces[0].tolist() == tokens_of(model, "[CLS] q x d a b[SEP] x?[SEP]")
    assert long.pieces[0].tolist() == tokens_of(model, f"[CLS] q x d {'a b ' * 6}[SEP] x?[SEP]")
    assert (short.n_cut, long.n_cut) == (0, 28)
    with pytest.raises(TextTooLong) as caught:
        reader.read_pairs("x", ["a b " * 20], 20, "error")
    assert caught.value.n_tokens == 48
    with pytest.raises(TextTooLong):
        reader.read_pairs("x " * 20, ["a b " * 20], 20, "cut")


def test_a_query_may_spell_the_marks_of_a_template(with_template: Model) -> None:
    (pair,) = TextReader(with_template).read_pairs("{document}", ["a {query}"], 64, "error")
    whole = "[CLS] q {document} d a {query}[SEP] {document}?[SEP]"
    assert pair.pieces[0].tolist() == tokens_of(with_template, whole)
