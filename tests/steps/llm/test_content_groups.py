"""Groups follow from the list alone, and one change in it moves few of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.steps.llm.reduce import content_groups


@settings(max_examples=60)
@given(names=st.lists(st.integers(), min_size=20, max_size=80, unique=True), at=st.integers(0, 79))
def test_one_item_more_or_less_changes_a_few_groups_however_long_the_list(
    names: list[int], at: int
) -> None:
    more = [str(name) for name in names]
    fewer = [name for index, name in enumerate(more) if index != at % len(more)]
    before = {tuple(more[begin:end]) for begin, end in content_groups(more, 8)}
    after = {tuple(fewer[begin:end]) for begin, end in content_groups(fewer, 8)}
    assert len(before - after) <= 6
    assert len(after - before) <= 6
