"""Documents read at Dask workers: the same texts, whatever becomes of the workers."""

import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import EngineError
from paddock.engine.system.frames import pack_frame
from paddock.engine.system.records import replace
from paddock.steps import plugins
from paddock.steps.readers import dask_readers, reader
from paddock.steps.readers.dask_readers import DaskReaders
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_pool import (
    DocumentRequest,
    PageRequest,
    ReadAbandoned,
    ReaderLimits,
    ReaderPool,
)
from tests.fakes.dask_cluster import DaskCluster, stand_in_reader
from tests.fakes.office import docx
from tests.fakes.pdf import pdf
from tests.runner.world import World, each_document, errors, settings
from tests.waiting import PATIENCE_S, until

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
MIB = 1024**2

TEXTS = each_document("""\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}.md", text: "{{ steps.text.text }}"}}
""")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader of `.wait` that is installed here; return where workers import it from."""
    at = stand_in_reader(tmp_path)
    known: tuple[Any, ...] = (plugins.plugins, reader.load_reader, dask_readers.reads_with)
    monkeypatch.syspath_prepend(at)
    monkeypatch.setenv("PYTHONPATH", str(at))  # of reader processes here
    monkeypatch.setenv("PYTHON_READ_LOG", str(tmp_path / "read.log"))
    monkeypatch.setattr(dask_readers, "_SILENT_S", 3.0)
    for cached in known:
        cached.cache_clear()
    yield at
    for cached in known:
        cached.cache_clear()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path) as made:
        yield made


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[DaskReaders, list[str]]]]:
    with ExitStack() as stack:

        def open_(url: str, memory_mib: int = 256) -> tuple[DaskReaders, list[str]]:
            here = stack.enter_context(closing(ReaderPool(ReaderLimits(60, memory_mib * MIB))))
            notes: list[str] = []
            return stack.enter_context(closing(DaskReaders(url, here, notes.append))), notes

        yield open_


def submit(readers: DaskReaders, path: Path, **wishes: Any) -> Future[Document]:
    request = DocumentRequest(path, None, "auto", True, 64 * MIB)
    return readers.submit(replace(request, **wishes) if wishes else request)


def waiting(folder: Path, n_files: int, seconds: float) -> list[Path]:
    paths = [folder / f"{n}.wait" for n in range(n_files)]
    for path in paths:
        path.write_text(f"{seconds} text of {path.name}")
    return paths


def test_a_run_writes_the_same_with_workers_as_without(
    tmp_path: Path, stand_in: Path, cluster: DaskCluster
) -> None:
    world = World(tmp_path, TEXTS)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.wait").write_text("0 by a plug-in")
    (inbox / "b.wait").write_text("0 odd")
    (inbox / "c é.docx").write_bytes(docx("# Order", "four slates"))
    (inbox / "d.pdf").write_bytes(pdf(["one page", "another"]))
    (inbox / "f.pdf").write_bytes(b"%PDF-1.7 broken")
    cluster.workers(there=stand_in)

    here = world.run()
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert len(texts) == 3
    there = world.run(settings=replace(settings(tmp_path), readers_url=cluster.url), force=["each"])
    assert errors(there) == errors(here)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == texts
    assert sorted(cluster.reads()) == [
        ("a.wait", "here"), ("a.wait", "there"), ("b.wait", "here"), ("b.wait", "there"),
    ]  # fmt: skip


def test_workers_that_read_with_something_else_are_named_and_not_used(
    tmp_path: Path, stand_in: Path, cluster: DaskCluster, opened: Any
) -> None:
    at = cluster.workers(good=stand_in, old=stand_in_reader(tmp_path, 2), bare=tmp_path)
    readers, notes = opened(cluster.url)
    paths = waiting(tmp_path, 6, 0.1)
    found = [job.result(PATIENCE_S).text for job in [submit(readers, path) for path in paths]]
    assert found == [f"text of {path.name}" for path in paths]
    assert {at for _, at in cluster.reads()} == {"good"}
    until(lambda: len(notes) == 2)
    named = (
        "The reader at {} is not used: readers is {} there, documents, formats, ocr, wait 1 here."
    )
    assert sorted(notes) == sorted(
        [
            named.format(at["old"], "documents, formats, ocr, wait 2"),
            named.format(at["bare"], "documents, formats, ocr"),
        ]
    )
    assert (readers.n_elsewhere, at["good"] in str(notes)) == (1, False)


def test_documents_of_workers_that_die_or_hang_are_read_elsewhere_and_at_last_here(
    tmp_path: Path, stand_in: Path, cluster: DaskCluster, opened: Any
) -> None:
    at = cluster.workers(killed=stand_in, stopped=stand_in, well=stand_in)
    readers, notes = opened(cluster.url)
    until(lambda: readers.n_elsewhere == 3)
    paths = waiting(tmp_path, 9, 0.2)
    assert all(job.result(PATIENCE_S) for job in [submit(readers, path) for path in paths])
    assert sorted(name for name, _ in cluster.reads()) == sorted(path.name for path in paths)
    assert {place for _, place in cluster.reads()} == set(at)
    cluster.log.unlink()
    jobs = [submit(readers, path) for path in paths]
    cluster.wait_until_each_reads("killed", "stopped", "well")
    cluster.signal("killed", signal.SIGKILL)
    cluster.signal("stopped", signal.SIGSTOP)
    assert [job.result(PATIENCE_S).text for job in jobs] == [
        f"text of {path.name}" for path in paths
    ]
    lost = {
        f"The reader at {address} failed: it is lost, or hangs."
        for address in (at["killed"], at["stopped"])
    }
    assert lost <= set(notes)
    # Then the whole cluster is cut off.
    jobs = [submit(readers, path) for path in paths]
    cluster.signal("scheduler", signal.SIGKILL)
    assert [job.result(PATIENCE_S).text for job in jobs] == [
        f"text of {path.name}" for path in paths
    ]
    assert "here" in {at for _, at in cluster.reads()}
    assert "cancelled" not in str(notes)


def test_what_nobody_can_reach_is_read_here_with_a_note(
    tmp_path: Path, stand_in: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_readers, "_CONNECT_S", 0.2)
    [path] = waiting(tmp_path, 1, 0)
    for url in ("tcp://127.0.0.1:9", "tls://127.0.0.1:9"):  # the second one without certificates
        readers, notes = opened(url)
        assert submit(readers, path).result(PATIENCE_S).text == "text of 0.wait"
        assert notes[0].startswith(f"Documents are read here: the readers at {url} cannot be asked")


def test_only_files_of_a_fair_size_are_sent_and_abandoned_ones_are_not_waited_for(
    tmp_path: Path, stand_in: Path, cluster: DaskCluster, opened: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cluster.workers(there=stand_in)
    readers, _ = opened(cluster.url)
    large, small = tmp_path / "large.wait", tmp_path / "small.wait"
    large.write_text("0 " + "x" * 100)
    small.write_text("100 x")
    odd = tmp_path / "c \udcff.docx"
    odd.write_bytes(docx("four slates"))
    (tmp_path / "a.pdf").write_bytes(pdf(["page"]))
    assert "four slates" in submit(readers, odd).result(PATIENCE_S).text
    monkeypatch.setattr(dask_readers, "MOST_SENT_BYTES", 100)
    unwanted = threading.Event()
    wish = DocumentRequest(small, None, "auto", True, MIB)
    job = readers.submit(wish, unwanted)
    assert submit(readers, large).result(PATIENCE_S).text == "x" * 100
    page = readers.submit(PageRequest(tmp_path / "a.pdf", 1, 50, MIB)).result(PATIENCE_S)
    assert page.startswith(b"\x89PNG")
    with pytest.raises(FileNotFoundError):
        submit(readers, tmp_path / "gone.wait").result(PATIENCE_S)
    cluster.wait_until_each_reads("there")
    unwanted.set()
    with pytest.raises(ReadAbandoned):
        job.result(PATIENCE_S)
    small.write_text("0 y")  # the worker has a place again
    assert submit(readers, small).result(PATIENCE_S).text == "y"
    assert sorted(cluster.reads()) == [("large.wait", "here"), *[("small.wait", "there")] * 2]


RESULT = {
    "event": "result", "sizes": [2], "title": "", "media_type": "text/plain", "notes": [],
    "why_empty": "", "cells": [], "invoices": [],
}  # fmt: skip


@pytest.mark.parametrize("sent", [
    None,
    b"",
    b"ok",
    pack_frame(RESULT, b"too long"),
    pack_frame({**RESULT, "notes": 1}, b"ok"),
    pack_frame({**RESULT, "cells": [[0, 1]]}, b"ok"),
    pack_frame({**RESULT, "invoices": [{"syntax": "cii"}]}, b"ok"),
    pack_frame({"event": "failure", "why": "memory"}),
    pack_frame({"event": "failure", "errno": 28, "why": "No space left on device"}),
    pack_frame({**RESULT, "sizes": [5000]}, b"x" * 5000),
])  # fmt: skip
def test_an_answer_that_no_reader_gives_is_a_failure_of_the_worker(sent: object) -> None:
    request = DocumentRequest(Path("a.txt"), None, "auto", True, 1000)
    assert dask_readers.checked_answer(request, pack_frame(RESULT, b"ok")).text == "ok"
    why = {"event": "failure", "why": "is odd", "remedy": "", "is_missing": False}
    with pytest.raises(Unreadable, match="is odd"):
        dask_readers.checked_answer(request, pack_frame(why))
    with pytest.raises(dask_readers.MustReadElsewhere):
        dask_readers.checked_answer(request, sent)


def test_without_the_extra_a_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module(dask_readers.__name__), "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"Install it: pip install 'paddock-llm\[dask\]'"):
        DaskReaders("tls://scheduler:8786", ReaderPool(), print)
