from pathlib import Path

import pytest

from tests.runner.test_cli import ended


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    return tmp_path


def test_an_error_of_our_own_is_one_sentence_and_a_file(home: Path) -> None:
    result = ended(ZeroDivisionError("division\nby zero"))
    (file,) = (home / "crashes").iterdir()
    assert result.exit_code == 1
    assert result.stderr == (
        "Internal error in Paddock (ZeroDivisionError: division by zero). "
        f"The traceback is in {file}; please report it.\n"
    )
    assert "raise error" in file.read_text()


def test_a_traceback_is_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_DEBUG", "1")
    assert "Traceback (most recent call last)" in ended(ZeroDivisionError()).stderr
