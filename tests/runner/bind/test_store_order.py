"""A search waits for what fills its store, or the file is refused."""

import pytest

from paddock.pipelines.errors import PipelineError
from tests.runner.bind.pipeline_faults import faults_of

FILLS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: index
    for_each: doc in steps.docs.files
    do: [{uses: embed, with: {texts: ["{{ doc.relpath }}"], store: "x.lance"}}]
"""
SEARCH = "  - {id: found, uses: search, with: {store: %s, query: a}%s}\n"


def test_a_search_that_does_not_wait_is_a_fault_at_its_store() -> None:
    (fault,) = faults_of(FILLS + SEARCH % ("x.lance", ""))
    assert str(PipelineError([fault])) == (
        "p.yaml:6:45: 'found' searches the store 'x.lance', which 'index' fills, but does not wait "
        "for it.\n"
        "       6 |   - {id: found, uses: search, with: {store: x.lance, query: a}}\n"
        "         |                                             ^^^^^^^\n"
        "  Add `needs: [index]` to 'found'."
    )


@pytest.mark.parametrize(
    "search",
    [
        SEARCH % ("x.lance", ", needs: [index]"),
        SEARCH % ("other.lance", ""),
        SEARCH % ("x.lance", ", if: steps.index.counts.failed == 0"),
        "  - {id: told, uses: prompt, with: {template: '{{ steps.index.counts }}'}}\n"
        + SEARCH % ("x.lance", ", needs: [told]"),
    ],
)
def test_one_that_waits_by_whatever_way_is_none(search: str) -> None:
    assert faults_of(FILLS + search) == ()


def test_to_search_what_was_there_before_is_no_fault() -> None:
    first = FILLS.replace("for_each", "needs: [found]\n    for_each") + SEARCH % ("x.lance", "")
    assert faults_of(first) == ()
