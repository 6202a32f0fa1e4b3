"""Documents from the file to what is written of them, without a model."""

from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.steps.readers import ocr_engine, reader
from paddock.steps.readers.ocr_layout import SeenText
from tests.fakes import hostile
from tests.fakes.office import scan, xlsx
from tests.fakes.pdf import pdf
from tests.fakes.pool import FakePool
from tests.fakes.readers import HereReaders
from tests.runner.world import World, each_document, errors, reasons, settings, states

CITED = each_document("""\
      - {id: parts, uses: split, with: {pages: "{{ steps.text.pages }}", tokens: 12}}
      - id: sum
        uses: summarise
        with: {chunks: "{{ steps.parts.chunks }}", cite: true, map: "{{ chunk.text }}"}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}.md", text: "{{ steps.sum.text }}"}}
    returns: {sources: steps.sum.sources}
returns: {results: steps.each.results}
""")


def test_what_is_said_of_a_document_names_its_pages(tmp_path: Path) -> None:
    def answer(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        return "Ida tuned the piano. Grace bought red slates." if "Summarise" in prompt else prompt

    world = World(tmp_path, CITED)
    (tmp_path / "inbox").mkdir()
    pages = ["On Monday Ida tuned the piano in the hall.", "Grace bought four hundred red slates."]
    (tmp_path / "inbox" / "a.pdf").write_bytes(pdf(pages))
    report = world.run(pool=FakePool(answer=answer))
    assert world.output("a.pdf.md") == (
        "Ida tuned the piano. [p. 1] Grace bought red slates. [p. 2]"
    )
    [result] = report.returns["results"]
    assert [(source["page"], source["page_end"]) for source in result["sources"]] == [
        (1, 1),
        (2, 2),
    ]


def test_a_new_extra_makes_old_only_what_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.xlsx").write_bytes(xlsx({"A": [["Item"], ["Slates"]]}))
    (tmp_path / "inbox" / "b.png").write_bytes(scan("Roof"))
    monkeypatch.setattr("paddock.runner.core.session.ReaderPool", HereReaders)
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "ocr")
    report = world.run()
    assert errors(report) == {
        "b.png": "step 'text': 'b.png' is a picture. "
        "To read it install the extra: pip install 'paddock-llm[ocr]'."
    }
    assert world.run().calls == 0
    monkeypatch.setattr(reader, "is_installed", lambda extra: True)
    monkeypatch.setattr(ocr_engine, "recognise", lambda *_: SeenText("Roof"))
    assert reasons(world.plan()) == {"b.png": "what reads documents here changed (step 'text')"}
    report = world.run()
    assert (states(report), world.output("b.png").split("] ")[1]) == (
        {"b.png": "stale"}, "Sum up: Roof (plain)",
    )  # fmt: skip


def test_bad_documents_fail_alone_and_are_not_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "inbox").mkdir()
    for name in ("bad1.pdf", "bad2.pdf"):
        (tmp_path / "inbox" / name).write_bytes(hostile.inflating_pdf())
    (tmp_path / "inbox" / "mail.eml").write_bytes(hostile.nested_mail())
    for name in ("good1.pdf", "good2.pdf"):
        (tmp_path / "inbox" / name).write_bytes(pdf([f"Text of {name}"]))
    world.edit('path: "{{ doc.path }}"}', 'path: "{{ doc.path }}"}, retry: {times: 3, backoff: 0s}')
    bounds = replace(settings(tmp_path), read_memory_bytes=256 * 1024**2)
    report = world.run(pool=FakePool(), settings=bounds)
    too_large = "is not read: it needs more than 256 MiB of memory."
    remedy = "Raise PADDOCK_READ_MEMORY to read it."
    assert errors(report) == {
        **{f"bad{n}.pdf": f"step 'text': 'bad{n}.pdf' {too_large} {remedy}" for n in (1, 2)},
        "mail.eml": "step 'text': 'mail.eml' is nested too deeply to be read.",
    }
    assert "Text of good1.pdf" in world.output("good1.pdf")
    assert "Text of good2.pdf" in world.output("good2.pdf")
    again = world.run(pool=FakePool(), settings=bounds)
    assert not [item for item in again.items if item.state == "new"]
