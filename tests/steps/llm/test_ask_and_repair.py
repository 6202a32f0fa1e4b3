import asyncio
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.backends.token_counting import LocalTokenizer
from paddock.engine.models.model_finder import ModelFinder
from paddock.steps.llm.prompt_truncation import first_part, most_that_fits


@given(n=st.integers(1, 100_000), limit=st.integers(0, 120_000))
def test_the_most_that_fits_is_found_to_within_two_percent(n: int, limit: int) -> None:
    async def fits(k: int) -> bool:
        return k <= limit

    found = asyncio.run(most_that_fits(fits, n))
    assert found <= min(n, limit)
    assert found >= 0.98 * min(n, limit) - 1


@given(text=st.text(alphabet="ab \n", max_size=400), n=st.integers(0, 420))
def test_a_beginning_ends_with_a_whole_word_if_one_ends_near(text: str, n: int) -> None:
    kept = first_part(text, n)
    assert text.startswith(kept)
    assert len(kept) <= n
    is_cut_word = kept and not text[len(kept) :][:1].isspace() and len(kept) < len(text)
    assert not is_cut_word or not any(char.isspace() for char in text[int(0.9 * n) : n])


TEXTS = {
    "a word and Chinese": "FACT-AA0 " + "渡轮正午离开港口" * 2500,
    "Chinese": "渡轮正午离开港口" * 2500,
    "JSON": json.dumps([{"name": "ferry", "leaves": "12:00"}] * 900, separators=(",", ":")),
    "words and JSON": "A boat: " + json.dumps([{"a": "b" * 30}] * 900, separators=(",", ":")),
    "an address": "Look at https://ferry.example/" + "a1b2c3-" * 5000,
    "prose": "The ferry leaves the harbour at noon. " * 900,
}


async def test_truncate_reads_what_fits_by_the_models_own_tokens(tmp_path: Path) -> None:
    n_fit, n_read = 1500, dict[str, int]()
    tokenizer = LocalTokenizer(ModelFinder(tmp_path, tmp_path).locate("smollm2:135m").path)

    async def count(text: str, n: int) -> int:
        return (await tokenizer.count_texts([first_part(text, n)]))[0]

    try:
        for name, text in TEXTS.items():

            async def fits(n: int, text: str = text) -> bool:
                return await count(text, n) <= n_fit

            n_read[name] = await count(text, await most_that_fits(fits, len(text)))
    finally:
        await tokenizer.aclose()
    assert {name: n for name, n in n_read.items() if not 0.85 * n_fit <= n <= n_fit} == {}
