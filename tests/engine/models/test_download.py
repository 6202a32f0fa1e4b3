import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.models.download import PartialBlob, split_into_parts

BLOB = "sha256-" + "0" * 64


def partial(tmp_path: Path, total: int = 100, least: int = 25) -> PartialBlob:
    return PartialBlob(tmp_path / BLOB, total, least)


@given(st.integers(0, 10**13), st.integers(1, 10**10))
def test_parts_cover_a_blob_without_gaps_and_are_large_enough(total: int, least: int) -> None:
    parts = split_into_parts(total, least)
    assert sum(part.size_bytes for part in parts) == total
    assert [part.offset for part in parts[1:]] == [part.ends_at for part in parts[:-1]]
    assert len(parts) <= 16
    if len(parts) > 1:
        assert min(part.size_bytes for part in parts) >= least


def test_what_ollama_began_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / f"{BLOB}-partial").write_bytes(b"a" * 60 + b"\0" * 40)
    for n, (offset, size, done) in enumerate([(0, 60, 60), (60, 40, 0)]):
        state = {"N": n, "Offset": offset, "Size": size, "Completed": done}
        (tmp_path / f"{BLOB}-partial-{n}").write_text(json.dumps(state) + "\n")
    ours = partial(tmp_path)
    ours.begin()
    assert [part.begins_at for part in ours.parts] == [60, 60]
    assert [part.is_done for part in ours.parts] == [True, False]


def test_a_state_is_json_as_ollama_reads_it(tmp_path: Path) -> None:
    ours = partial(tmp_path)
    ours.begin()
    ours.write(ours.parts[1], b"b" * 7)
    progress = json.loads((tmp_path / f"{BLOB}-partial-1").read_text())
    assert progress == {"N": 1, "Offset": 25, "Size": 25, "Completed": 7}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / f"{BLOB}-partial-1").unlink(),
        lambda folder: (folder / f"{BLOB}-partial-1").write_text("{"),
        lambda folder: (folder / f"{BLOB}-partial").unlink(),
        lambda folder: (folder / f"{BLOB}-partial").write_bytes(b"short"),
        lambda folder: (folder / f"{BLOB}-partial-1").write_text(
            '{"N":1,"Offset":25,"Size":25,"Completed":26}'
        ),
    ],
)
def test_what_does_not_fit_together_is_begun_again(tmp_path: Path, damage: object) -> None:
    first = partial(tmp_path)
    first.begin()
    first.write(first.parts[0], b"a" * 25)
    damage(tmp_path)  # type: ignore[operator]
    again = partial(tmp_path)
    again.begin()
    assert again.completed_bytes == 0
    assert [part.offset for part in again.parts] == [0, 25, 50, 75]
