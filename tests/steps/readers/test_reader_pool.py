"""Reader processes: hostile documents fail alone, in words, and nothing of them is left behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from paddock.engine.system.processes import python_command
from paddock.steps.base import StepError
from paddock.steps.readers import documents, reader_process
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from tests.fakes import hostile
from tests.fakes.office import docx
from tests.fakes.pdf import pdf
from tests.fakes.readers import end_readers
from tests.fakes.tools import FakeLog
from tests.waiting import PATIENCE_S, until

OPTIONS = reader_process.ReadOptions()
MIB = 1024**2
MEMORY = "needs more than 256 MiB of memory. Raise PADDOCK_READ_MEMORY to read it."

MODULE = reader_process.__name__

Pool = Callable[..., ReaderPool]


@pytest.fixture
def opened() -> Iterator[Pool]:
    end_readers()  # of runs of other files: readers are counted here
    made: list[ReaderPool] = []

    def open_(timeout_s: float = PATIENCE_S, memory_mib: int = 256) -> ReaderPool:
        made.append(ReaderPool(ReaderLimits(timeout_s, memory_mib * MIB)))
        return made[-1]

    yield open_
    for pool in made:
        pool.close()


async def read(
    path: Path, readers: ReaderPool, data: bytes | None = None, *, max_bytes: int = 64 * MIB
) -> str:
    if data is not None:
        path.write_bytes(data)  # noqa: ASYNC240 - nothing else happens in this loop
    try:
        return (
            await documents.load_document(
                path, OPTIONS, readers=readers, log=FakeLog(), max_bytes=max_bytes
            )
        ).text
    except StepError as error:
        assert error.kind == "other"  # the same bytes fail again: no other try
        return str(error)


def cmdline(process: psutil.Process) -> list[str]:
    """Return a process's words; none where it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
        return process.cmdline()
    return []


def of_readers() -> list[psutil.Process]:
    """Return the reader processes of this process, and the guards that stand by them.

    Other tests may have started other processes here: an engine, a service.
    """
    return [one for one in psutil.Process().children(recursive=True) if MODULE in cmdline(one)]


def reader_processes() -> list[psutil.Process]:
    words = list(python_command("-m", MODULE))
    return [one for one in of_readers() if cmdline(one)[: len(words)] == words]


def is_reading() -> bool:
    """Return whether a reader has its document: its CPU time is bounded from then on."""
    unbounded = psutil.Process().rlimit(psutil.RLIMIT_CPU)
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(one.rlimit(psutil.RLIMIT_CPU) != unbounded for one in reader_processes())
    return False


def is_left(process: psutil.Process) -> bool:
    """Return whether a process runs; one of which only its parent must still hear does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def peak_mib() -> int:
    """Return the most memory that this process had since the last call."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one]
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) // 1024


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("inflating.pdf", hostile.inflating_pdf, f"'inflating.pdf' is not read: it {MEMORY}"),
        ("liar.docx", hostile.lying_docx,
         "'liar.docx' is damaged or not a Word document (XMLSyntaxError: Namespace prefix w on "
         "document is not defined, line 1, column 12 (<string>, line 1))."),
        ("laughs.docx", hostile.laughing_docx,
         "'laughs.docx' is not read: its XML has entities that unfold to far more than the file "
         "holds."),
        ("deep.docx", hostile.deep_docx,
         "'deep.docx' is not read: its XML is nested too deeply."),
        ("many.json", lambda: b"[" + b"{}," * 9_000_000 + b"1]",
         f"'many.json' is not read: it {MEMORY}"),
        ("text.docx", lambda: docx("word " * 40_000),
         "'text.docx' has 199,999 characters of text, and `max_bytes` allows 100,000. "
         "Raise `max_bytes` to read it."),
        ("again.epub", hostile.repeating_epub,
         "'again.epub' has 109,989 or more characters of text, and `max_bytes` allows 100,000. "
         "Raise `max_bytes` to read it."),
    ],
)  # fmt: skip
def test_a_hostile_document_fails_in_words_and_a_good_one_is_read_after_it(
    tmp_path: Path, opened: Pool, name: str, data: Callable[[], bytes], said: str
) -> None:
    async def both() -> tuple[str, str]:
        pool = opened()
        most = 100_000 if name in ("text.docx", "again.epub") else 64 * MIB
        bad = await read(tmp_path / name, pool, max_bytes=most)
        return bad, await read(tmp_path / "good.pdf", pool, pdf(["Good"]))

    (tmp_path / name).write_bytes(data())
    peak_mib()  # what making it took
    peak_before = peak_mib()
    assert asyncio.run(both()) == (said, "Good")
    assert peak_mib() - peak_before < 64


def test_a_page_that_does_not_end_is_ended_and_the_next_is_read(
    tmp_path: Path, opened: Pool
) -> None:
    async def both() -> tuple[str, str]:
        pool = opened(timeout_s=2.0)
        await read(tmp_path / "warm.html", pool, b"<p>x</p>")  # its libraries are imported
        bad = await read(tmp_path / "bad.html", pool, hostile.endless_html())
        return bad, await read(tmp_path / "good.pdf", opened(), pdf(["Good"]))

    assert asyncio.run(both()) == (
        "'bad.html' is not read: it takes more than 2 s for one of its pages or parts. "
        "Raise PADDOCK_READ_TIMEOUT to read it.",
        "Good",
    )


def test_a_reader_that_gets_no_processor_fails_for_the_machine_and_not_for_its_document(
    tmp_path: Path, opened: Pool
) -> None:
    async def stopped() -> StepError:
        pool = opened(timeout_s=1.0)
        await read(tmp_path / "warm.html", pool, b"<p>x</p>")
        [reader] = reader_processes()
        reader.suspend()
        with pytest.raises(StepError) as caught:
            (tmp_path / "bill.html").write_bytes(b"<p>320.00</p>")
            await documents.load_document(
                tmp_path / "bill.html", OPTIONS, readers=pool, log=FakeLog(), max_bytes=MIB
            )
        return caught.value

    error = asyncio.run(stopped())
    assert error.kind == "io"  # tried again by the next run, not quarantined
    assert "the machine is too busy, its reader had 0 s of a processor in 4 s" in error.reason


def test_a_relative_path_is_that_of_the_run(
    tmp_path: Path, opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert asyncio.run(read(Path("a.pdf"), opened(), pdf(["Here"]))) == "Here"
    assert documents.read_document_file(Path("a.pdf"), max_bytes=MIB).text == "Here"


def test_a_reader_has_no_secrets_no_open_files_and_is_the_first_that_the_system_ends(
    tmp_path: Path, opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with (tmp_path / "ledger.sqlite").open("wb") as ledger:
        os.set_inheritable(ledger.fileno(), True)
        assert asyncio.run(read(tmp_path / "a.pdf", opened(), pdf(["x"]))) == "x"
        [reader] = reader_processes()
        place = Path(f"/proc/{reader.pid}")
        assert b"hunter2" not in (place / "environ").read_bytes()
        assert (place / "oom_score_adj").read_text().strip() == "1000"
        files = [str(one.readlink()) for one in (place / "fd").iterdir()]
    kinds = sorted({one.partition(":")[0] for one in files})
    assert kinds == ["/dev/null", "pipe"]
    assert str(tmp_path) not in json.dumps(files)


def test_one_process_reads_many_documents(tmp_path: Path, opened: Pool) -> None:
    async def one_after_the_other() -> set[int]:
        pool = opened()
        seen = set()
        for n in range(5):
            assert await read(tmp_path / "a.pdf", pool, pdf([str(n)])) == str(n)
            seen |= {one.pid for one in reader_processes()}
        return seen

    assert len(asyncio.run(one_after_the_other())) == 1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_reader_that_dies_fails_its_document_alone(
    tmp_path: Path, opened: Pool, number: signal.Signals
) -> None:
    async def killed() -> StepError:
        pool = opened()
        (tmp_path / "bad.html").write_bytes(hostile.endless_html())
        task = asyncio.create_task(
            documents.load_document(
                tmp_path / "bad.html", OPTIONS, readers=pool, log=FakeLog(), max_bytes=MIB
            )
        )
        await asyncio.to_thread(until, is_reading)
        [reader] = reader_processes()
        reader.send_signal(number)
        with pytest.raises(StepError) as caught:
            await task
        assert await read(tmp_path / "good.pdf", pool, pdf(["Good"])) == "Good"
        return caught.value

    error = asyncio.run(killed())
    if number == signal.SIGKILL:  # not by us: the system's want of memory, which may pass
        assert (error.kind, error.reason) == (
            "io",
            "'bad.html' is not read: the system ended its reader, as it does where memory runs "
            "out.",
        )
    else:
        assert (error.kind, error.reason) == (
            "other",
            "'bad.html' is not read: it is damaged, or needs more than 256 MiB of memory; its "
            "reader was killed by SIGSEGV.",
        )


def test_a_reader_that_went_idle_is_replaced(tmp_path: Path, opened: Pool) -> None:
    pool = opened()
    assert asyncio.run(read(tmp_path / "a.pdf", pool, pdf(["one"]))) == "one"
    [reader] = reader_processes()
    reader.kill()
    assert asyncio.run(read(tmp_path / "a.pdf", pool, pdf(["two"]))) == "two"


def test_who_stops_waiting_ends_the_reader(tmp_path: Path, opened: Pool) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(read(tmp_path / "a.html", pool, hostile.endless_html()))
        await asyncio.to_thread(until, lambda: bool(reader_processes()))
        started = of_readers()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(until, lambda: not any(map(is_left, started)))

    pool = opened()
    asyncio.run(cancelled())


RUN = """
import sys
from pathlib import Path
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderPool
job = ReaderPool().submit(DocumentRequest(Path(sys.argv[1]), "html", "auto", False, 1 << 30))
print("begun", flush=True)
job.result()
"""


def test_a_reader_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes(hostile.endless_html())
    with subprocess.Popen([sys.executable, "-c", RUN, str(page)]) as run:
        run_ = psutil.Process(run.pid)
        started: list[psutil.Process] = []

        def has_started() -> bool:
            started[:] = run_.children(recursive=True)
            return len(started) == 3  # the guard, its supervisor, and the reader

        until(has_started)
        run.kill()
        run.wait()
        until(lambda: not any(map(is_left, started)))


def test_a_small_text_is_read_without_a_process(tmp_path: Path) -> None:
    wishes = reader_process.ReadOptions()
    for name, text in (("a.txt", "Hi"), ("a.md", "# Hi"), ("a.csv", "a,b"), ("a.json", "{}")):
        (tmp_path / name).write_text(text)
        found = reader_process.read_small(tmp_path / name, wishes, MIB)
        assert found is not None
        assert found.text == text
    (tmp_path / "large.txt").write_text("x" * (reader_process.SMALL_BYTES + 1))
    (tmp_path / "a.html").write_text("<p>x")
    for name in ("large.txt", "a.html"):
        assert reader_process.read_small(tmp_path / name, wishes, MIB) is None
    (tmp_path / "hidden.txt").write_bytes(pdf(["x"]))
    assert reader_process.read_small(tmp_path / "hidden.txt", wishes, MIB) is None


def test_a_heading_of_many_marks_is_found_in_no_time(tmp_path: Path) -> None:
    """A search that begins again at each of them takes hours for these 200 KB."""
    (tmp_path / "a.md").write_text("# " + "# " * 100_000 + "x")
    found = reader_process.read_small(tmp_path / "a.md", reader_process.ReadOptions(), MIB)
    assert found is not None
    assert len(found.title) == 200
