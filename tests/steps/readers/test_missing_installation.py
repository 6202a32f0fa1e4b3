"""Files of the installation that are gone count against no document."""

from pathlib import Path

import pytest

from paddock.pipelines.checking import cldr
from paddock.steps.base import StepError
from paddock.steps.readers.documents import reading_errors


def test_a_missing_file_of_the_installation_is_not_the_documents() -> None:
    names = Path(cldr.__file__).with_name("no_names.json")
    with pytest.raises(StepError) as caught, reading_errors("the text of 'a.txt'"):
        names.read_text("utf-8")
    assert (caught.value.kind, str(caught.value)) == (
        "missing",
        f"'{names}', a file that belongs to the installation, cannot be read: it does not exist. "
        "Install `paddock-llm` again.",
    )
    with pytest.raises(StepError) as caught, reading_errors("'a.txt'"):
        Path("a.txt").read_text("utf-8")
    assert (caught.value.kind, str(caught.value)) == (
        "io", "'a.txt' cannot be read: it does not exist.",
    )  # fmt: skip
