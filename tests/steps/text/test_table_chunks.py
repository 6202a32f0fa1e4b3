import pytest

from paddock.steps.text.table_chunks import TextTable, find_tables


def rows(text: str) -> list[list[str]]:
    return [[text[start:end] for start, end in table.rows] for table in find_tables(text)]


@pytest.mark.parametrize("text", ["", "| alone |", "a | b", "| A |\n| --- |", "x\n| a |\ny\n| b |"])
def test_what_is_no_table_is_none(text: str) -> None:
    assert find_tables(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ada,\nyours,\nme, too\n",
        "We came, we saw\nthey left, we stayed\nit rained, it poured",
        "a,b\n1,2\n3,4,5\n",
        'a,b\n1,"2\n3,4\n',
        "a,b\n1,2\n",
    ],
    ids=["a letter", "a poem", "uneven", "a quote left open", "two rows"],
)
def test_what_only_has_commas_is_no_csv(text: str) -> None:
    assert find_tables(text) == []


@pytest.mark.timeout(20)
def test_a_name_of_many_letters_is_looked_at_once() -> None:
    """A search that begins again at each letter takes hours."""
    name = "a" * 100_000
    assert find_tables(f"{name},b\nc,d\ne,f\n") == [
        TextTable(
            (0, len(name) + 2), ((len(name) + 3, len(name) + 6), (len(name) + 7, len(name) + 10))
        )
    ]
