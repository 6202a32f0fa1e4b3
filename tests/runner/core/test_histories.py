"""Whatever happens to a folder, in the end it is as a run from scratch makes it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.forked import ForkServer
from tests.runner.core import filing_days, random_histories
from tests.runner.world import each_document
from tests.waiting import PATIENCE_S

# 100261: a run was killed between a copy and its item's entry, and its block renamed before the
# next one. 200208: a run was killed as it wrote the index, which later runs left as it is.
# 400082: a block was renamed, and the index left. 400519: `if` is false, and nothing can be read.
EARLIER = ("--plain", "--histories", "1", "--seed", "100261", "200208", "400082", "400519")
REVIEWS = ("--reviews", "--histories", "5")
FILING = ("--filing", "--histories", "12", "--seed", "29")  # each shape of a pipeline once
FILING_REVIEWS = ("--filing", "--reviews", "--histories", "6", "--seed", "1000")
MOVING = ("--moving", "--filing", "--reviews", "--histories", "6", "--seed", "9100")


@pytest.mark.parametrize(
    "given",
    [("--histories", "8"), EARLIER, REVIEWS, FILING, FILING_REVIEWS, MOVING],
    ids=["random", "earlier faults", "reviews", "filing", "filing and reviews", "moving"],
)
def test_a_history_ends_as_a_run_from_scratch_or_as_all_arrivals_replayed(
    given: Sequence[str], fork_server: ForkServer
) -> None:
    process = fork_server.start(random_histories.main, given)
    out, err = process.communicate(timeout=3 * PATIENCE_S)
    assert process.returncode == 0, out + err
    assert out.endswith(" histories, 0 of them wrong\n")


def test_after_each_of_many_days_the_table_is_what_was_filed(tmp_path: Path) -> None:
    filing_days.live(tmp_path, "hot", 23)


PAGES = each_document("""\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}.md", text: "{{ steps.text.text }}"}}
""")


def test_a_page_of_a_killed_run_is_made_again_though_its_text_is_the_earlier_one_again(
    tmp_path: Path,
) -> None:
    """At each write of its ledger: the file is there before the entry is."""
    pipeline, document = tmp_path / "pipeline.yaml", tmp_path / "inbox/a.txt"
    document.parent.mkdir()
    pipeline.write_text(PAGES)
    n_pages_of_killed = 0
    for kill_at in range(1, 40):
        document.write_text("the earlier")
        random_histories.run_here(tmp_path, prune=False)
        document.write_text("the later")
        later = partial(random_histories.run_here, tmp_path, prune=False)
        if random_histories.in_a_process(tmp_path, later, kill_at) is not None:
            break
        page = tmp_path / "out/a.txt.md"
        n_pages_of_killed += page.read_text() == "the later"
        document.write_text("the earlier")
        random_histories.run_here(tmp_path, prune=False)
        assert page.read_text() == "the earlier", kill_at
    assert n_pages_of_killed > 1
