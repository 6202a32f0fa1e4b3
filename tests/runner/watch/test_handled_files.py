"""What a watch keeps in the ledger, and how it reads the end of a run there."""

from pathlib import Path

from paddock.runner.folders.file_versions import UNKNOWN_FILE
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.watch.batches import BatchOutcome, batch_outcome
from paddock.runner.watch.handled_files import HandledFiles, WatchLedger
from paddock.runner.workers.order import Order
from tests.runner.world import World, each_document

BAD = """\
name: texts
""" + each_document("""\
      - {uses: files.write, with: {path: "inbox/{{ doc.stem }}.md", text: "{{ steps.text.text }}"}}
""")


def book_of(world: World) -> WatchLedger:
    def opens(is_readonly: bool) -> Ledger:
        return Ledger(world.folder / ".paddock", is_readonly=is_readonly)

    return WatchLedger("w", world.folder / "inbox", world.file, opens)


def test_a_book_that_no_one_has_written_is_empty(tmp_path: Path) -> None:
    book = book_of(World(tmp_path))
    assert (book.read(), book.owned()) == (HandledFiles(), frozenset())
    assert not (tmp_path / ".paddock").exists()


def test_what_is_recorded_is_read_again_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    book = book_of(World(tmp_path))
    book.record("r", {"a": (1, 1), "b": (2, 2)}, ())
    assert book.read() == HandledFiles({"a": (1, 1), "b": (2, 2)})
    book.record("r", {"a": (3_000_000_000, 1_700_000_000_000_000_001)}, ("b",))
    assert book.read() == HandledFiles({"a": (3_000_000_000, 1_700_000_000_000_000_001)})


def test_what_an_older_paddock_counted_is_no_file(tmp_path: Path) -> None:
    book = book_of(World(tmp_path))
    book.record("r", {"": (7, 0), "a": UNKNOWN_FILE}, ())
    assert book.read() == HandledFiles({"a": UNKNOWN_FILE})


def test_an_order_that_never_became_a_run_ended_as_the_queue_says(tmp_path: Path) -> None:
    order = Order("1", "k", "p", "watch inbox", state="ended", end="skipped", words="it is late")
    assert book_of(World(tmp_path)).outcome(order) == BatchOutcome(
        "", "skipped", message="it is late"
    )


def test_what_several_machines_did_together_is_told_by_what_each_of_them_recorded(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, BAD, {"inbox/good.txt": "Good.", "inbox/empty.txt": ""})
    report = world.run()
    with Ledger(tmp_path / ".paddock") as ledger:
        of_one = batch_outcome(ledger, report.run)
        row = RunStore(ledger).run(report.run)
        assert row is not None
        facts = {name: getattr(row, name) for name in row.__slots__}
        RunStore(ledger).record_run({**facts, "parent": "inbox-0123"})
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        outcome = batch_outcome(ledger, "inbox-0123", "completed", "1 new, 1 quarantined")
        words = "1 new, 1 quarantined"
        assert outcome == BatchOutcome("inbox-0123", "completed", of_one.failed, {}, words, set())
        crashed = batch_outcome(ledger, "inbox-0123")
        assert crashed == BatchOutcome("inbox-0123", "crashed", of_one.failed, waiting=set())


def test_what_a_run_wrote_below_the_root_and_how_it_ended(tmp_path: Path) -> None:
    world = World(tmp_path, BAD, {"inbox/good.txt": "Good.", "inbox/empty.txt": ""})
    report = world.run()
    assert book_of(world).owned() == frozenset((str(tmp_path / "inbox/good.md"),))
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        outcome = batch_outcome(ledger, report.run)
        assert batch_outcome(ledger, "never-was") == BatchOutcome(
            "never-was", "crashed", waiting=set()
        )
    assert outcome.status == "quarantined"
    assert list(outcome.failed) == ["empty.txt"]
    assert outcome.failed["empty.txt"] != ""
    assert outcome.again == {}
