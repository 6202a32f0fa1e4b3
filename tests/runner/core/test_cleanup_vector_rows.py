"""Rows in stores are outputs like files: fresh, stale, kept, removed, and whole after a kill."""

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import EmbedReply, EmbedRequest
from paddock.runner.ledger.ledger import Ledger
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.world import World, each_document, reasons, states
from tests.waiting import until

INDEX = """\
name: index
""" + each_document("""\
      - {id: parts, uses: split, with: {pages: "{{ steps.text.pages }}", tokens: 4}}
      - {uses: embed, with: {chunks: "{{ steps.parts.chunks }}", store: index.lance}}
""")
SEARCH = """\
  - {id: found, needs: [each], uses: search, with: {store: index.lance, query: ferry, k: 2}}
returns: {hits: steps.found.hits}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, INDEX, n_documents=3)


def rows(world: World, store: str = "index.lance") -> list[dict[str, Any]]:
    """Return every row as the library itself reads it, in the order of its item."""
    import lancedb

    table = lancedb.connect(world.folder / store).open_table("rows")
    return sorted(table.to_arrow().to_pylist(), key=lambda row: (row["item"], row["index"]))


def texts(world: World, store: str = "index.lance") -> list[str]:
    return [row["text"] for row in rows(world, store)]


def test_a_row_says_where_it_comes_from(world: World) -> None:
    world.write("inbox/sub/notes.md", "# Boats\n\n## Times\n\nIt goes at nine.\n")
    assert world.run().status == "completed"
    row = next(row for row in rows(world) if "nine" in row["text"])
    expected = {"source": "sub/notes.md", "item": "sub/notes.md", "page": 1, "page_end": 1}
    assert {name: row[name] for name in expected} == expected
    assert row["headings"] == ["Boats", "Times"]
    assert len(row["vector"]) == 8


def test_of_a_changed_document_only_new_parts_are_embedded(world: World) -> None:
    world.run()
    n_before = n_versions(world)
    world.write("inbox/1.txt", "Document 1, about the bell.")
    report = world.run()
    assert [request.texts for request in world.pool.embeds] == [("bell.",)]
    assert texts(world)[2:4] == ["Document 1, about the", "bell."]
    assert n_versions(world) == n_before + 1
    assert report.written == (str(world.folder / "index.lance"),)


def test_a_store_that_is_gone_is_made_again_without_a_model(world: World) -> None:
    world.run()
    before = texts(world)
    shutil.rmtree(world.folder / "index.lance")
    assert set(reasons(world.plan()).values()) == {"its rows are missing in the store: index.lance"}
    report = world.run()
    assert (report.counts["stale"], world.pool.embeds) == (3, [])
    assert texts(world) == before
    assert not states(world.run())


def test_what_is_kept_of_deleted_documents_is_told_and_removed_where_that_is_asked(
    world: World,
) -> None:
    world.run()
    (world.folder / "inbox/1.txt").unlink()
    report = world.run()
    assert len(texts(world)) == 6
    assert report.notes == (
        "kept, though what they were made of is gone: 2 rows of index.lance (`--prune` removes)",
    )
    report = world.run(prune=True)
    assert [row["item"] for row in rows(world)] == ["0.txt", "0.txt", "2.txt", "2.txt"]
    assert report.notes == (
        "removed, since what they were made of is gone: 2 rows of 'index.lance'",
    )
    assert world.run(prune=True).notes == ()


def test_rows_of_a_document_that_went_while_no_one_ran_after_a_kill_go_as_well(
    world: World,
) -> None:
    """What stands after a kill between a store's commit and the ledger's: rows without an entry."""
    world.run()
    with Ledger(world.folder / ".paddock") as ledger:
        scope = ledger.rows("select scope from items where key = '1.txt'")[0][0]
        ledger.drop("items", {"scope": scope, "key": "1.txt"})
    (world.folder / "inbox/1.txt").unlink()
    assert world.run().notes == ()
    assert {row["item"] for row in rows(world)} == {"0.txt", "2.txt"}


def test_a_search_is_done_again_where_the_store_holds_something_else(world: World) -> None:
    world.edit(INDEX, INDEX + SEARCH)
    first = world.run()
    assert not states(world.run(), "found")
    import lancedb

    lancedb.connect(world.folder / "index.lance").open_table("rows").optimize()
    assert not states(world.plan(), "found"), "the same rows in other files"
    world.write("inbox/1.txt", "ferry")
    report = world.run()
    assert reasons(report, "found") == {"found": "store changed: index.lance"}
    assert report.returns["hits"][0]["text"] == "ferry"
    assert first.returns["hits"] != report.returns["hits"]
    assert not states(world.run(), "found")


def test_a_store_of_another_model_stops_the_run_with_a_way_out(world: World) -> None:
    world.run()
    world.edit("store: index.lance", "store: index.lance, model: other")
    world.edit("steps:\n", "models: {other: {ref: other, role: embed}}\nsteps:\n")
    report = world.run()
    assert report.status == "failed"
    assert str(report.message).replace(str(world.folder), "…") == (
        "the store '…/index.lance' holds vectors of model 'all-minilm', and those of 'other' "
        "cannot be compared with them. Use `model: all-minilm`, use another folder for the store, "
        "or delete that one to create it again."
    )


# --- killed


class Stopping(FakePool):
    """Embeds no more once a store has so many versions."""

    def __init__(self, world: World, most: int) -> None:
        super().__init__(delay_s=0.05)
        self._world, self._most = world, most

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        if n_versions(self._world) >= self._most:
            await asyncio.sleep(600)
        return await super().embed(request)


def run_until(world: World, most: int) -> None:
    world.run(pool=Stopping(world, most))


def n_versions(world: World) -> int:
    return len(list((world.folder / "index.lance/rows.lance/_versions").glob("*.manifest")))


def embedded(world: World) -> int:
    if not (world.folder / ".paddock/ledger.sqlite").exists():
        return 0
    with world.ledger() as ledger:
        return int(ledger.rows("select count(*) from calls where kind = 'embed'")[0][0])


def test_after_kills_in_the_middle_the_rows_are_those_of_an_undisturbed_run(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    """Killed twice while it writes, then done to the end: none is missing, none is there twice."""
    text = INDEX.replace("do:", "max_parallel: 2\n    do:", 1)
    quiet, killed = World(tmp_path / "quiet", text), World(tmp_path / "killed", text)
    for world in (quiet, killed):
        world.documents(60)
    quiet.run()
    for n in (8, 24):
        process = fork_server.start(run_until, killed, n + 8)
        until(lambda: n_versions(killed) >= n or process.poll() is not None)  # noqa: B023 - waits
        process.kill()
        assert process.wait() == -signal.SIGKILL, "killed before it was done"
    n_before = embedded(killed)
    assert 0 < n_before < 60
    killed.run()
    assert len(killed.pool.embeds) == 60 - n_before, "no call that had ended is made again"
    assert rows(killed) == rows(quiet)
    assert not states(killed.run())


# --- a full disk
