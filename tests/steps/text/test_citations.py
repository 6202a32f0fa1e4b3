from paddock.steps.text.citations import (
    Passage,
    passages_by_chunk,
    passages_by_page,
    with_citations,
)
from paddock.steps.text.text_parts import to_part


def test_each_sentence_names_the_passage_that_most_of_its_words_are_of() -> None:
    pages = passages_by_page(
        ["Roof slates cost 1,240 euros.", "The roof was mended in March by Ada."]
    )
    text = "- Slates cost 1,240 euros.\n- Ada mended the roof in March!\n\nIt is the roof.\n"
    assert with_citations(text, pages) == (
        "- Slates cost 1,240 euros. [p. 1]\n- Ada mended the roof in March! [p. 2]\n\n"
        "It is the roof.\n"
    )


def test_numbers_that_stand_nowhere_keep_a_sentence_from_being_cited() -> None:
    assert with_citations("Profits rose by 512 percent.", [Passage("Profits fell.", "p. 1")]) == (
        "Profits rose by 512 percent."
    )


def test_numbers_and_days_count_in_any_notation() -> None:
    pages = passages_by_page(
        ["Rechnung über 1.240,00 € vom 3. Mai 2024.", "Rechnung über 1.420,00 € vom 4. Mai 2024."]
    )
    assert with_citations("Rechnung vom 2024-05-04. Rechnung über 1240 Euro.", pages) == (
        "Rechnung vom 2024-05-04. [p. 2] Rechnung über 1240 Euro. [p. 1]"
    )


def test_chinese_is_compared_by_its_characters() -> None:
    pages = passages_by_page(["春茶在四月采摘。", "价格上涨了百分之十。"])
    assert with_citations("价格上涨了百分之十。春茶四月采摘。", pages) == (
        "价格上涨了百分之十。 [p. 2]春茶四月采摘。 [p. 1]"
    )


def test_what_has_no_pages_is_cited_by_its_headings() -> None:
    passages = passages_by_page(
        ["# Prices\n\nSlates cost five euros.\n\n## Terms\n\nPay in thirty days."]
    )
    assert with_citations("Pay nothing for ever.", passages) == "Pay nothing for ever."
    assert (
        with_citations("You pay in thirty days.", passages) == "You pay in thirty days. [§ Terms]"
    )


def test_chunks_over_several_pages_are_cited_by_all_of_them() -> None:
    chunks = [
        to_part({"text": "Slates cost five euros.", "page": 1, "page_end": 1}),
        to_part({"text": "Pay in thirty days please.", "page": 2, "page_end": 4}),
    ]
    assert (
        with_citations("Pay in thirty days.", passages_by_chunk(chunks))
        == "Pay in thirty days. [pp. 2\u20134]"
    )


def test_without_pages_and_headings_nothing_is_cited() -> None:
    assert (
        with_citations("Pay in thirty days.", passages_by_page(["Pay in thirty days."]))
        == "Pay in thirty days."
    )
    assert with_citations(
        "Pay in thirty days.", passages_by_chunk([to_part("Pay in thirty days.")])
    ) == ("Pay in thirty days.")
