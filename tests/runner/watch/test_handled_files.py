"""What a watch keeps in the ledger, and how it reads the end of a run there."""

from pathlib import Path

from paddock.runner.folders.file_versions import UNKNOWN_FILE
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.watch.handled_files import BatchOutcome, WatchLedger
from paddock.runner.workers.order import Order, OrderEnd
from tests.runner.world import World, each_document

BAD = """\
name: texts
""" + each_document("""\
      - {uses: files.write, with: {path: "inbox/{{ doc.stem }}.md", text: "{{ steps.text.text }}"}}
""")


def watch_of(world: World) -> WatchLedger:
    def opens(is_readonly: bool) -> Ledger:
        return Ledger(world.folder / ".paddock", is_readonly=is_readonly)

    return WatchLedger("w", world.folder / "inbox", world.file, opens)


def ended(run: str, end: OrderEnd, words: str = "") -> Order:
    return Order("1", "k", "p", "watch inbox", state="ended", run=run, end=end, words=words)


def test_recorded_files_are_read_again_and_gone_ones_forgotten(tmp_path: Path) -> None:
    watch = watch_of(World(tmp_path))
    assert (watch.read(), watch.owned()) == ({}, frozenset())
    assert not (tmp_path / ".paddock").exists()
    watch.record("r", {"a": (1, 1), "b": (2, 2), "": (7, 0), "c": UNKNOWN_FILE}, ())
    assert watch.read() == {"a": (1, 1), "b": (2, 2), "c": UNKNOWN_FILE}
    watch.record("r", {"a": (3_000_000_000, 1_700_000_000_000_000_001)}, ("b", "c"))
    assert watch.read() == {"a": (3_000_000_000, 1_700_000_000_000_000_001)}


def test_own_outputs_below_the_root_and_how_orders_ended(tmp_path: Path) -> None:
    world = World(tmp_path, BAD, {"inbox/good.txt": "Good.", "inbox/empty.txt": ""})
    report, watch = world.run(), watch_of(world)
    assert watch.owned() == frozenset((str(tmp_path / "inbox/good.md"),))
    outcome = watch.outcome(ended(report.run, "quarantined"))
    assert (outcome.status, [*outcome.failed], outcome.again) == ("quarantined", ["empty.txt"], {})
    assert outcome.failed["empty.txt"] != ""
    late = BatchOutcome("", "skipped", message="it is late", waiting=set())
    assert watch.outcome(ended("", "skipped", "it is late")) == late
    killed = BatchOutcome("never-was", "crashed", waiting=set())
    assert watch.outcome(ended("never-was", "crashed")) == killed
