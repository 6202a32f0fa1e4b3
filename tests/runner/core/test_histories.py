"""Whatever happens to a folder, in the end it is as a run from scratch makes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runner.core import filing_days

pytestmark = pytest.mark.may_take(240, "many folders live through all of their runs, and kills")

# 100261: a run was killed between a copy and its item's entry, and its block renamed before the
# next one. 200208: a run was killed as it wrote the index, which later runs left as it is.
# 400082: a block was renamed, and the index left. 400519: `if` is false, and nothing can be read.
EARLIER = ("--plain", "--histories", "1", "--seed", "100261", "200208", "400082", "400519")
REVIEWS = ("--reviews", "--histories", "12")
FILING = ("--filing", "--histories", "8", "--seed", "29")  # each shape of a pipeline once


@pytest.mark.parametrize(
    "given",
    [("--histories", "16"), EARLIER, REVIEWS, FILING],
    ids=["random", "earlier faults", "reviews", "filing"],
)
def test_a_history_ends_as_a_run_from_scratch_or_as_all_arrivals_replayed(
    given: Sequence[str],
) -> None:
    command = [sys.executable, "-m", "tests.runner.core.random_histories", *given]
    folder = Path(__file__).parents[3]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith(" histories, 0 of them wrong\n")


def test_after_each_of_many_days_the_table_is_what_was_filed(tmp_path: Path) -> None:
    filing_days.live(tmp_path, "hot", 23)
