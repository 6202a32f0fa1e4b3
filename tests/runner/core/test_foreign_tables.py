"""A run over tables of strangers: what is wrong with one is a sentence on its item alone."""

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from tests.runner.world import World, errors, outputs
from tests.steps.tables.fuzz_tables import overlong

EACH = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: rows, uses: files.rows, with: {path: "{{ doc.path }}", columns: {n: int}}}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.jsonl", rows: "{{ steps.rows.rows }}"}
"""


def test_a_table_that_is_damaged_or_has_digits_without_end_stops_no_other(tmp_path: Path) -> None:
    world = World(tmp_path, EACH)
    inbox = tmp_path / "inbox"
    inbox.mkdir(exist_ok=True)
    (inbox / "digits.csv").write_text(f"n\n1\n{'9' * 5000}\n")
    (inbox / "good.csv").write_text("n\n1\n")
    parquet.write_table(pa.table({"n": [2]}), inbox / "good2.parquet")
    for size in (4_000, 4_000_000, 2**31 - 1):
        (inbox / f"leak{size}.arrow").write_bytes(overlong("n", size))
    found = errors(world.run())
    shown = "9" * 39 + "…"
    assert f"'digits.csv' has '{shown}' in column 'n', which is no int (line 3)." in (
        found.pop("digits.csv")
    )
    assert len(found) == 3
    assert all("is damaged: column 'n': " in error for error in found.values())
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert written == {"good.jsonl": '{"n": 1}\n', "good2.jsonl": '{"n": 2}\n'}
    assert len(outputs(world)) == 2
