"""Files that a person edited are left alone."""

from pathlib import Path

import pytest

from tests.fakes.tools import FakeTools
from tests.steps.files.test_write import Write, refused


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_edited_file_is_kept_and_said(
    tmp_path: Path, write: Write, hands: FakeTools, is_ours: bool
) -> None:
    if is_ours:
        write("a.md", text="one")
    (tmp_path / "a.md").write_text("my own words")
    assert write("a.md", text="two").changed is False
    assert (tmp_path / "a.md").read_text() == "my own words"
    path = tmp_path.resolve() / "a.md"
    assert hands.notes == [f"'{path}' was edited, or is not ours: it is kept as it is."]


def test_an_edited_file_is_overwritten_if_wished(tmp_path: Path, write: Write) -> None:
    (tmp_path / "a.md").write_text("my own words")
    assert write("a.md", text="two", on_edited="overwrite").changed is True
    assert (tmp_path / "a.md").read_text() == "two"


def test_an_edited_file_is_a_failure_if_wished(tmp_path: Path, write: Write) -> None:
    (tmp_path / "a.md").write_text("my own words")
    path = tmp_path.resolve() / "a.md"
    assert str(refused(write, "a.md", on_edited="fail")) == (
        f"'{path}' was edited, or is not ours, and `on_edited` is `fail`. "
        "Move it away, set `on_edited` to `keep` or `overwrite`, or run with `--take`."
    )
