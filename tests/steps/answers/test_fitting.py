import asyncio

from hypothesis import given
from hypothesis import strategies as st

from paddock.steps.answers.fitting import head, most


@given(n=st.integers(1, 100_000), limit=st.integers(0, 120_000))
def test_the_most_that_fits_is_found_to_within_two_percent(n: int, limit: int) -> None:
    async def fits(k: int) -> bool:
        return k <= limit

    found = asyncio.run(most(fits, n))
    assert found <= min(n, limit)
    assert found >= 0.98 * min(n, limit) - 1


@given(text=st.text(alphabet="ab \n", max_size=40), n=st.integers(0, 45))
def test_a_beginning_ends_with_a_whole_word(text: str, n: int) -> None:
    kept = head(text, n)
    assert text.startswith(kept)
    assert len(kept) <= max(n, 0)
    is_cut_word = kept and not text[len(kept) :][:1].isspace() and len(kept) < len(text)
    assert not is_cut_word or not any(char.isspace() for char in kept.strip())
