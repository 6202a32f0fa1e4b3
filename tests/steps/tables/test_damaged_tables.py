"""Damaged files of tables end no run, and give nothing that is not theirs."""

from pathlib import Path

import pytest

from .fuzz_tables import KINDS, try_files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.may_take(180, "a reader process starts again for each file that ends it")
def test_a_damaged_file_gives_its_own_rows_or_a_sentence(kind: str, tmp_path: Path) -> None:
    counts = try_files(kind, 12, 1, tmp_path)
    assert counts.total() == 12
    assert counts["read"] >= 1  # the whole one
