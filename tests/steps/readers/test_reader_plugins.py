import asyncio
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from paddock.steps import plugins as entry_points
from paddock.steps.base import StepError
from paddock.steps.files.read import FilesRead, FilesReadParams
from paddock.steps.plugins import READER_GROUP
from paddock.steps.readers import reader
from paddock.steps.readers.reader import Document, Unreadable
from tests.fakes.tools import tools


class Shout:
    suffixes = (".shout",)
    media_type = "text/x-shout"
    version = 3

    def read(self, path: Path) -> Document:
        text = path.read_text().upper()
        if text == "QUIET":
            raise Unreadable("does not shout", "Shout.")
        if text == "WRONG":
            return text  # type: ignore[return-value]
        return Document((text,)) if text else Document(pages=(str(1 // 0),))


class NoReader:
    suffixes = (".x",)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two readers of another package; the caches are emptied before and after."""
    points = [
        EntryPoint("shout", f"{__name__}:Shout", READER_GROUP),
        EntryPoint("broken", f"{__name__}:NoReader", READER_GROUP),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(EntryPoint, "load", lambda point: globals()[point.value.split(":")[1]])
        patch.setattr(entry_points, "entry_points", lambda group: points)
        for known in (entry_points.plugins, reader.load_reader):
            known.cache_clear()
        yield
    for known in (entry_points.plugins, reader.load_reader):
        known.cache_clear()


def read(base: Path, name: str, text: str, **wishes: str) -> str:
    (base / name).write_text(text)
    out = asyncio.run(FilesRead().run(FilesReadParams(path=name, **wishes), tools(base)))  # type: ignore[arg-type]
    return f"{out.text} {out.title} {out.media_type}"


def refused(base: Path, name: str, text: str, **wishes: str) -> str:
    with pytest.raises(StepError) as caught:
        read(base, name, text, **wishes)
    return str(caught.value)


def test_a_plug_in_reads_its_suffix_and_what_the_author_says_it_shall(tmp_path: Path) -> None:
    assert read(tmp_path, "a.SHOUT", "hello") == "HELLO a text/x-shout"
    assert read(tmp_path, "a.txt", "hello", type="shout") == "HELLO a text/x-shout"
    assert read(tmp_path, "a.txt", "hello") == "hello a text/plain"


def test_what_a_plug_in_refuses_or_does_wrong_is_told_with_its_name(tmp_path: Path) -> None:
    assert refused(tmp_path, "a.shout", "quiet") == "'a.shout' does not shout. Shout."
    broken = "'a.shout' cannot be read: reader 'shout' of package 'paddock-llm' cannot be used:"
    remedy = "Update or remove 'paddock-llm'."
    assert (
        refused(tmp_path, "a.shout", "wrong")
        == f"{broken} it does not return a `Document`. {remedy}"
    )
    assert refused(tmp_path, "a.shout", "") == (
        f"{broken} ZeroDivisionError: integer division or modulo by zero. {remedy}"
    )
    assert refused(tmp_path, "a.txt", "x", type="broken").endswith(
        f"cannot be used: {__name__}:NoReader lacks `media_type`, `version`, `read`. {remedy}"
    )


def test_a_new_version_of_a_plug_in_makes_what_was_read_old() -> None:
    assert reader.reader_versions()[-2:] == ("broken broken", "shout 3")


def test_a_plug_in_for_a_kind_that_was_left_to_plug_ins_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shout, "suffixes", (".shout", ".rtf", ".pdf"))
    assert read(tmp_path, "a.rtf", "hello") == "HELLO a text/x-shout"
    with pytest.raises(StepError, match="damaged or not a PDF"):
        read(tmp_path, "a.pdf", "hello")


def test_a_kind_that_no_one_reads_is_a_fault_of_the_pipeline() -> None:
    with pytest.raises(ValueError, match="'dwg' is not a kind of document; known: auto, txt, md"):
        FilesReadParams(path="a", type="dwg")


def test_the_schema_for_editors_names_the_kinds() -> None:
    schema = FilesReadParams.model_json_schema()["properties"]["type"]
    assert {"auto", "docx", "image", "shout"} < set(schema["enum"])
