import io
import sys
from pathlib import Path

import pytest

from paddock.runner.cli.model_arguments import parse_keep_alive, read_document_text, read_stdin
from paddock.steps.base import StepError


def given(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_text_is_read_in_whatever_encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Zürnau".encode("utf-16"))
    assert read_document_text(str(tmp_path / "a.txt")) == "Zürnau"
    given(monkeypatch, b"\xef\xbb\xbfline\r\n")
    assert read_stdin() == "line\n"


def test_a_folder_in_place_of_a_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="is a folder"):
        read_document_text(str(tmp_path))


def test_a_duration_is_read() -> None:
    assert parse_keep_alive("1h") == 3600
    assert parse_keep_alive("-1") == -1
