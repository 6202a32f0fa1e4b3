"""A watch over a real folder, with a clock of its own: each version is done once in effect.

What a run does is played: it reads the files that are there at the moment, does those of the
versions of its order that its ledger does not know yet, and removes what was made of files that are
gone. Orders outlast the watch.
"""

import itertools
import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.runner.folders.file_versions import FileIdentity, FileVersion, file_version_at
from paddock.runner.folders.folder_listing import list_folder
from paddock.runner.watch import hot_folder
from paddock.runner.watch.handled_files import BatchOutcome
from paddock.runner.watch.next_batch import MOST_ORDERS_OUT, WatchState
from paddock.runner.workers.order import Order

NAMES = ("a.txt", "sub/b.txt")
names = st.sampled_from(NAMES)


def put(path: Path, version: int) -> None:
    """Write a version of a file: its content and its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(".aside.tmp")
    aside.write_text(f"version {version}")
    os.utime(aside, ns=(version * 1_000_000_000, version * 1_000_000_000))
    aside.replace(path)


class World:
    """A folder, the book, and a pipeline whose runs are played."""

    def __init__(self, *, is_hot: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="paddock-watch-"))
        self.root = self.folder / "inbox"
        self.root.mkdir()
        self.spec = WatchSpec(
            "w", self.root, settle_s=2, batch_s=10, reconcile_s=600, is_hot=is_hot
        )
        self.filter = WatchFilter(self.spec)
        self.now = 0.0
        self.book: dict[str, FileIdentity] = {}
        self.made: dict[str, str] = {}
        """What the runs have made: path → the content that it was made of."""
        self.done: list[tuple[str, str | None]] = []
        """Every (path, content) that a run has done, in order; no content: it was removed."""
        self.n_orders = 0
        self.queue: list[Order] = []
        self.running: Order | None = None
        self.untold: list[Order] = []
        """Orders that ended while no watch took it."""
        self.state = self.opened()

    def opened(self) -> WatchState:
        orders = [*self.untold, *([self.running] if self.running else ()), *self.queue]
        return WatchState(self.spec, dict(self.book), orders=orders)

    def contents(self, root: Path | None = None) -> dict[str, str]:
        root = root or self.root
        if not root.is_dir():
            return {}
        seen = list_folder(root, self.filter).files
        return {relpath: (root / relpath).read_text() for relpath in seen}

    # --- what a watch does in its rounds

    def look(self) -> None:
        try:
            listing = list_folder(self.root, self.filter)
        except OSError:
            return
        self.state.take_listing(listing, self.now)

    def check_stability(self) -> None:
        self.state.release(self.now)
        to_check = self.state.settling.to_check(self.now)
        found = {name: file_version_at(str(self.root / name), name) for name in to_check}
        self.state.check(found, self.now)

    def hand_on(self) -> None:
        if not self.state.is_due(self.now):
            return
        if self.spec.is_hot:
            ready = self.state.ready()
            moved = hot_folder.claim_files(self.spec, ready, self.state.claimed).files
            self.state.claimed |= moved
            for relpath in ready.keys() - moved.keys():
                self.state.forget_file(relpath)
        files, gone = tuple(self.state.ready().values()), tuple(self.state.gone())
        if files or gone:
            self.n_orders += 1
            order = Order(str(self.n_orders), "", "p", "watch", files=files, gone=gone)
            self.queue.append(order)
            self.state.sent(order)

    def round(self) -> None:
        self.look()
        self.check_stability()
        self.hand_on()

    def go_out(self) -> None:
        """Everything that is there settles and goes out."""
        self.look()
        self.now += self.spec.settle_s
        self.check_stability()
        self.look()
        self.now += self.spec.batch_s
        self.hand_on()

    # --- what runs do

    def begin(self) -> None:
        """A run starts: it reads what is there now, and its ledger spares what is known."""
        if self.running is not None or not self.queue:
            return
        self.running = self.queue.pop(0)
        self.work()

    def work(self) -> None:
        assert self.running is not None
        there = self.contents(self.spec.processing if self.spec.is_hot else None)
        now = {} if self.spec.is_hot else list_folder(self.root, self.filter).files
        ordered = {seen.relpath: seen.identity for seen in self.running.files}
        for relpath, text in there.items():
            is_settled = self.spec.is_hot or ordered.get(relpath) == now[relpath].identity
            if is_settled and self.made.get(relpath) != text:
                self.made[relpath] = text
                self.done.append((relpath, text))
        if not self.spec.is_hot:
            for relpath in [path for path in self.made if path not in there]:
                del self.made[relpath]
                self.done.append((relpath, None))

    def end(self, status: str = "completed") -> None:
        if self.running is None:
            return
        order, self.running = self.running, None
        self.tell(order, status)

    def tell(self, order: Order, status: str) -> None:
        outcome = BatchOutcome("run", status)  # type: ignore[arg-type]
        update = self.state.note_end(order.id, outcome)
        assert update is not None
        if not self.spec.is_hot:
            self.book |= update.files
        for relpath in update.gone:
            self.book.pop(relpath, None)
        self.state.ended(order.id, outcome, update, self.now)
        if self.spec.is_hot:
            moved = hot_folder.finish_files(self.spec, list(update.files), {}, self.state.claimed)
            self.state.left(moved.files)
            self.state.changed(moved.changed, self.now)

    def kill(self) -> None:
        """The watch is killed and starts again; a run goes on by itself, and its end is taken."""
        if self.running is not None:
            self.untold.append(self.running)
            self.running = None
        self.state = self.opened()
        if self.spec.is_hot:
            found = hot_folder.claimed_files(self.spec, self.filter)
            new = {path: seen for path, seen in found.items() if path not in self.state.claimed}
            self.state.found_claimed(new, self.now)
        for order in self.untold:
            self.tell(order, "completed")
        self.untold.clear()

    def calm(self) -> None:
        """Nothing happens in the folder any more; time passes, rounds and runs go on."""
        for _ in range(12):
            for _ in range(4):
                self.look()
                self.now += 2
                self.check_stability()
            self.now += 4000
            self.check_stability()
            self.look()
            self.now += 2
            self.check_stability()
            self.look()
            self.now += 10
            self.hand_on()
            while self.queue or self.running:
                self.begin()
                self.end()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def do_all(world: World) -> None:
    world.go_out()
    world.begin()
    world.end()


def played() -> World:
    """Return a world in which version 1 of a file has been done."""
    world = World()
    put(world.root / "a.txt", 1)
    do_all(world)
    assert world.book == {"a.txt": seen(world).identity}
    return world


def seen(world: World) -> FileVersion:
    return list_folder(world.root, world.filter).files["a.txt"]


@pytest.mark.parametrize("is_renamed", [True, False], ids=["by a rename", "in place"])
def test_a_file_replaced_by_one_of_equal_size_and_time_is_done_again(*, is_renamed: bool) -> None:
    with closing(played()) as world:
        path = world.root / "a.txt"
        target = path.with_name(".aside.tmp") if is_renamed else path
        target.write_text("version I")
        os.utime(target, ns=(1_000_000_000, 1_000_000_000))
        target.replace(path)
        assert (seen(world).size, seen(world).mtime_ns) == (9, 1_000_000_000)
        come_to_rest(world)
        assert world.made == {"a.txt": "version I"}


def test_a_file_that_an_older_paddock_handled_is_known() -> None:
    with closing(played()) as world:
        world.book = {"a.txt": (9, 1_000_000_000)}
        world.state = world.opened()
        come_to_rest(world)
        assert world.done == [("a.txt", "version 1")]


class _Watched(RuleBasedStateMachine):
    """Time passes, runs begin and end, the watch is killed at any moment."""

    def __init__(self, *, is_hot: bool = False) -> None:
        super().__init__()
        self.world = World(is_hot=is_hot)

    @rule()
    def a_round_later(self) -> None:
        self.world.round()
        self.world.now += 1

    @rule()
    def all_goes_out(self) -> None:
        self.world.go_out()

    @rule()
    def a_run_begins(self) -> None:
        self.world.begin()

    @rule(status=st.sampled_from(["completed", "completed", "failed", "crashed", "interrupted"]))
    def a_run_ends(self, status: str) -> None:
        self.world.end(status)

    @rule()
    def the_watch_is_killed(self) -> None:
        self.world.kill()

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.world.close()

    def come_to_rest(self) -> None:
        """Pass time, and check what has become of the files."""
        raise NotImplementedError


class Folder(_Watched):
    """Versions come, go and come back; events get lost."""

    @initialize(there=st.sets(names))
    def files_are_there_at_the_start(self, there: set[str]) -> None:
        for name in there:
            put(self.world.root / name, 1)

    @rule(name=names, version=st.sampled_from([1, 2]))
    def written(self, name: str, version: int) -> None:
        """A version has its own time, as where a copy is brought back from elsewhere."""
        put(self.world.root / name, version)

    @rule(name=names)
    def deleted(self, name: str) -> None:
        (self.world.root / name).unlink(missing_ok=True)

    @rule()
    def root_deleted_and_made_again(self) -> None:
        shutil.rmtree(self.world.root)
        self.world.root.mkdir()

    @invariant()
    def few_orders_are_out(self) -> None:
        assert self.world.state.counts()["orders_out"] <= MOST_ORDERS_OUT

    def come_to_rest(self) -> None:
        come_to_rest(self.world)


def come_to_rest(world: World) -> None:
    """Pass time: everything that is there has been done, once, and nothing more happens."""
    world.calm()
    there = world.contents()
    assert {name: world.made.get(name) for name in there} == there
    assert world.made.keys() == there.keys()
    n_done, n_runs = len(world.done), world.n_orders
    world.calm()
    assert (len(world.done), world.n_orders) == (n_done, n_runs), "it does not come to rest"
    for name in NAMES:
        of_it = [text for other, text in world.done if other == name]
        assert all(earlier != two for earlier, two in itertools.pairwise(of_it))


class HotFolder(_Watched):
    """Documents are dropped under names that come again."""

    def __init__(self) -> None:
        super().__init__(is_hot=True)
        hot_folder.make_hot_folders(self.world.spec)
        self.n = 0
        self.dropped: list[str] = []

    @rule(name=names)
    def dropped_whole(self, name: str) -> None:
        """A document comes by a rename; one that waits under its name is not replaced."""
        target = self.world.root / name
        if target.exists():
            return
        self.n += 1
        put(target, self.n)
        self.dropped.append(f"version {self.n}")

    @rule()
    def killed_in_the_middle_of_claiming(self) -> None:
        hot_folder.claim_files(self.world.spec, self.world.state.ready(), self.world.state.claimed)
        self.world.kill()

    def come_to_rest(self) -> None:
        self.world.calm()
        assert sorted(text or "" for _, text in self.world.done) == sorted(self.dropped)
        done = self.world.contents(self.world.root / "done")
        assert sorted(done.values()) == sorted(self.dropped)
        assert self.world.contents(self.world.spec.processing) == {}
        assert self.world.contents() == {}


_few = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestFolder = Folder.TestCase
TestFolder.settings = _few
TestHotFolder = HotFolder.TestCase
TestHotFolder.settings = _few
