"""`paddock clean --forget`: a document that a person wants gone is in no rule and in no row."""

import os
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from paddock.engine.system.file_locks import lock_now
from paddock.engine.system.records import replace
from paddock.runner.ledger import forgetting
from paddock.runner.ledger.database.ledger_tables import COLUMNS
from paddock.runner.ledger.database.sqlite_file import SqliteDatabase
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import RetentionLimits, Sweeper, sweep_ledger
from paddock.runner.ledger.run_store import RunStore
from tests.forked import ForkServer
from tests.runner.cli.commands.shell import invoke
from tests.runner.core.test_rules_of_decisions import (
    ALL,
    FILING,
    NEXT,
    SENDER,
    Desk,
    bill,
    shown_rules,
)  # fmt: skip
from tests.runner.world import World, each_document, reasons, states

PERSON = "K-77231"
"""Of whom a paper is."""
OTHER = "Osier Garden Centre"
DECIDED = {"number": "RE-777", "sender": OTHER}
OFFICE = FILING.replace(
    "returns: steps.each.results",
    """\
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
returns: steps.each.results""",
).replace(
    "      - {uses: files.move",
    """\
      - id: page
        uses: files.write
        with: {path: "out/{{ doc.stem }}.txt", text: "{{ steps.text.text }}"}
      - {uses: files.move""",
)


def of_person(**values: str) -> str:
    return bill(customer=PERSON, **values)


def office(folder: Path) -> Desk:
    """Return a desk where `zwingen` and `o` were decided on, and `b` read by the first one's."""
    desk = Desk(folder, OFFICE)
    desk.teach("zwingen", of_person())
    desk.teach("o", bill(sender=OTHER, number="RE-777"), **DECIDED)
    desk.work()
    desk.arrive(
        b=bill(**NEXT),
        q=bill(sender=OTHER, **NEXT | {"number": "RE-800"}),
        r=bill(sender=OTHER, **NEXT | {"number": "RE-801"}),
    )
    desk.work()
    assert [*desk.waiting()] == []
    return desk


def files_with(desk: Desk, text: str) -> list[str]:
    found = (path for path in (desk.folder / ".paddock").rglob("*") if path.is_file())
    return sorted(path.name for path in found if text.encode() in path.read_bytes())


def test_a_filed_document_that_is_forgotten_is_in_no_rule_no_table_and_no_file_of_the_ledger(
    tmp_path: Path,
) -> None:
    desk = office(tmp_path)
    assert files_with(desk, PERSON)
    shown = invoke("clean", str(desk.file), "--forget", "filed/zwingen.txt", "--dry-run")
    assert shown.exit_code == 0
    asked = invoke("clean", str(desk.file), "--forget", "zwingen.txt")
    assert "`--yes`" in asked.output
    assert files_with(desk, PERSON)
    done = invoke("clean", str(desk.file), "--forget", "zwingen.txt", "--yes")
    assert done.exit_code == 0, done.output
    assert PERSON in desk.output("zwingen.txt")
    assert f"out/zwingen.txt. When it is in no scanned folder, `paddock run {desk.file}" in (
        shown.output
    )
    assert files_with(desk, PERSON) == []
    assert [r["sender"] for r in shown_rules(desk, "--json")["rules"]] == [[OTHER]]
    plan = desk.plan()
    assert "decisions changed how" in str(reasons(plan)["b.txt"])
    report = desk.work()
    assert report.status == "completed"
    assert (desk.asked("b"), {*report.outdated}) == (ALL, {"out/zwingen.txt"})
    assert "RE-777" in desk.output("t.csv") and "RE-101" not in desk.output("t.csv")
    assert files_with(desk, PERSON) == []
    desk.arrive(p=bill(**NEXT | {"sender": OTHER}), c=bill(**NEXT | {"number": "RE-103"}))
    desk.work()
    assert (desk.asked("p"), desk.asked("c")) == (frozenset(), ALL)
    desk.undo("o.txt")
    desk.work()
    assert {*desk.waiting()} >= {"o.txt", "q.txt", "r.txt", "b.txt", "c.txt"}


HOT = "on: {watch: [{path: inbox, claim: move, settle: 1s}]}\n"


@pytest.mark.parametrize(("folder", "out"), [("inbox", "inbox"), ("inbox/processing", "out")])
def test_files_that_were_made_of_it_stay_are_no_documents_and_are_pruned_unless_edited(
    tmp_path: Path, folder: str, out: str
) -> None:
    text = """\
      - {uses: files.write, with: {path: "inbox/{{ doc.stem }}.1.out", text: "one"}}
      - id: lines
        for_each: line in ["2", "3"]
        do:
          - uses: files.write
            with: {path: "inbox/{{ doc.stem }}.{{ line }}.out", text: "{{ line }}"}
"""
    text = each_document(text).replace("./inbox", folder).replace("inbox/{{", f"{out}/{{{{")
    world = World(tmp_path, HOT * (folder != out) + text)
    for name in "abcde":
        world.write(f"{folder}/{name}.txt", name)
    world.run()
    world.write(f"{out}/a.2.out", "edited")
    (tmp_path / out / "a.3.out").unlink()
    (tmp_path / folder / "a.txt").unlink()
    done = invoke("clean", str(tmp_path), "--forget", "a.txt", "--yes")
    assert done.exit_code == 0 and f"{out}/a.1.out, {out}/a.2.out. When" in done.output
    left = {f"{out}/a.1.out", f"{out}/a.2.out"}
    assert {*world.plan().outdated} == left
    assert {*world.plan(prune=True).removed} == {f"{out}/a.1.out"}
    assert ({*world.run().outdated}, states(world.run())) == (left, {})
    world.run(prune=True)
    assert sorted(path.name for path in (tmp_path / out).glob("a*")) == ["a.2.out"]
    sweep_ledger(tmp_path / ".paddock", "", RetentionLimits(0.0, time.time()))
    with Ledger(tmp_path / ".paddock") as ledger:
        known = {row.path.rpartition("/")[2] for row in ledger.outputs()}
        assert {"a.1.out", "a.2.out"} <= known and "a.3.out" not in known
        for row in ledger.outputs():
            ledger.record_output(replace(row, at=1.0), "")
    sweep_ledger(tmp_path / ".paddock", "", RetentionLimits(0.0, 2.0))
    with world.ledger() as ledger:
        known = {row.path.rpartition("/")[2] for row in ledger.outputs()}
    assert "a.1.out" not in known and {"a.2.out", "b.1.out", "b.2.out"} <= known


def test_its_rows_in_stores_go_at_the_next_run(tmp_path: Path) -> None:
    text = """\
      - id: parts
        for_each: word in ["ferry", "bell"]
        do:
          - {uses: embed, with: {chunks: [{text: "{{ word }} {{ steps.text.text }}"}], store: s.db}}
"""
    world = World(tmp_path, each_document(text))
    for name in ("a", "b"):
        world.write(f"inbox/{name}.txt", name)
    world.run()
    (tmp_path / "inbox/a.txt").unlink()
    done = invoke("clean", str(tmp_path), "--forget", "a.txt", "--yes")
    assert done.exit_code == 0, done.output
    assert world.run().status == "completed"
    import lancedb  # which reacts to forks of the process

    rows = lancedb.connect(tmp_path / "s.db").open_table("rows").to_arrow().to_pylist()
    assert {row["text"] for row in rows} == {"ferry b", "bell b"}


def all_old(desk: Desk) -> RetentionLimits:
    """Make all objects old; return limits by which all else is, too."""
    for path in (desk.folder / ".paddock/objects").iterdir():
        os.utime(path, (0, 0))
    return RetentionLimits(time.time() + 1e6, time.time() + 1e6)


def test_a_document_that_was_deleted_before_it_was_filed_leaves_no_rule_and_later_no_byte(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    desk.teach("zwingen", of_person())
    desk.arrive(b=bill(**NEXT), c=bill(sender=OTHER))
    desk.work()
    (tmp_path / "inbox/zwingen.txt").unlink()
    desk.work()
    assert shown_rules(desk, "--json")["rules"] == []
    desk.work()
    assert desk.asked("b") == ALL
    sweep_ledger(tmp_path / ".paddock", "", all_old(desk))
    assert files_with(desk, PERSON) == []


def forget_and_die(folder: Path, is_committed: bool) -> int:
    def die(*given: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if is_committed:
        Sweeper.sweep = die  # type: ignore[method-assign,assignment]
    else:
        whole = SqliteDatabase.in_transaction
        SqliteDatabase.in_transaction = (  # type: ignore[method-assign]
            lambda self, work: whole(self, lambda execute: die(work(execute)))  # type: ignore
        )
    invoke("clean", str(folder), "--forget", "zwingen.txt", "--yes")
    return 0


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_kill_leaves_all_of_it_or_nothing(
    tmp_path: Path, fork_server: ForkServer, *, is_committed: bool
) -> None:
    desk = office(tmp_path)
    process = fork_server.start(forget_and_die, tmp_path, is_committed)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    senders = [rule["sender"] for rule in shown_rules(desk, "--json")["rules"]]
    assert ([SENDER] in senders) is not is_committed
    assert desk.plan().has_work is is_committed
    if not is_committed:
        done = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
        assert done.exit_code == 0, done.output
    sweep_ledger(tmp_path / ".paddock", "", all_old(desk))
    assert files_with(desk, PERSON) == []
    desk.work()
    assert desk.asked("b") == ALL


def test_a_document_is_forgotten_in_postgres(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = office(tmp_path)
    with Ledger(tmp_path / ".paddock", url=url):  # it begins with the rows of the file
        pass
    monkeypatch.setenv("PADDOCK_LEDGER", url)
    with psycopg.connect(url) as other:
        query = "select nspname from pg_namespace where nspname like 'paddock_%'"
        ((schema,),) = other.execute(query).fetchall()
        tables = [f"select '{t}', t::text from \"{schema}\".{t} t".encode() for t in COLUMNS]
        assert [query for query in tables if other.execute(query).fetchall()]
        kept = invoke("clean", str(tmp_path), "--forget", "r.txt", "--yes")
        assert "`vacuum (full)` in its database does it" in kept.output and kept.exit_code == 1
        other.rollback()
        done = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
        assert done.exit_code == 0, done.output
        rows = [row for query in tables for row in other.execute(query)]
    assert [rule["sender"] for rule in shown_rules(desk, "--json")["rules"]] == [[OTHER]]
    assert any(OTHER in text for _, text in rows)
    assert not any(PERSON in text for _, text in rows)
    assert {table for table, text in rows if "zwingen" in text} == {"outputs"}


def test_nothing_is_forgotten_during_a_run_without_consent_or_by_an_unknown_name(
    tmp_path: Path,
) -> None:
    desk = office(tmp_path)
    unknown = invoke("clean", str(tmp_path), "--forget", "zwinger.txt", "--yes")
    assert "Did you mean 'zwingen.txt'?" in unknown.output
    with Ledger(tmp_path / ".paddock") as ledger:
        here = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        row = {"run": "owl", "pipeline": "bills", "file": "pipeline.yaml", "status": "running"}
        RunStore(ledger).record_run(here | row)
    busy = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
    assert "'owl' works on this folder: nothing was changed" in busy.output
    assert (unknown.exit_code, busy.exit_code) == (2, 1)
    assert files_with(desk, PERSON)


@pytest.mark.parametrize("lock", ["ledger.lock", "locks/*.lock", "clean.lock"])
def test_nothing_is_forgotten_while_another_process_has_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    desk = office(tmp_path)
    monkeypatch.setattr(forgetting, "LOCK_WAIT_S", 0.0)
    state = tmp_path / ".paddock"
    with lock_now(next(state.glob(lock), state / lock)):
        busy = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
    assert busy.exit_code == 1 and "another process" in busy.output
    assert files_with(desk, PERSON)
    assert invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes").exit_code == 0
    assert desk.work().status == "completed"


def test_unused_space_that_a_reader_keeps_is_named(tmp_path: Path) -> None:
    desk = office(tmp_path)
    file = tmp_path / ".paddock/ledger.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin")
        other.execute("select * from items").fetchall()
        kept = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
    assert kept.exit_code == 1 and "`paddock clean` does it" in kept.output
    assert invoke("clean", str(tmp_path)).exit_code == 0
    assert files_with(desk, PERSON) == []


def test_a_document_is_named_as_it_is_shown_by_its_path_or_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preview(name: str) -> str:
        shown = invoke("clean", str(tmp_path), "--forget", name, "--dry-run")
        assert (shown.exit_code == 0) is shown.output.startswith("What is known of '")
        return shown.output.partition("(")[0].removeprefix("What is known of ")

    desk = Desk(tmp_path, FILING)
    desk.teach("z", of_person())
    desk.work()
    desk.arrive(z=of_person(**NEXT), k=of_person())
    desk.work()
    desk.arrive(z=bill(sender=OTHER, number="RE-900"))
    desk.work()
    three = preview("z.txt")
    of = f" of {desk.file}"
    assert f"'filed/z-1.txt' or 'z.txt#2'{of}, 'filed/z.txt' or 'z.txt#1'{of}, 'inbox" in three
    assert f"'inbox/z.txt' or 'z.txt#3'{of}.\n  Name one as it is shown" in three
    monkeypatch.chdir(tmp_path / "inbox")
    for name in ("inbox/z.txt", str(tmp_path / "inbox/z.txt"), "./z.txt", ".././inbox/z.txt"):
        assert preview(name).startswith("3 documents are known")
    for name in ("filed/z.txt", "z.txt#1", "k.txt", "../filed/k.txt"):
        assert preview(name) == "'filed/k.txt', 'filed/z.txt' "
    assert preview("z.txt#2") == preview("filed/z-1.txt") == "'filed/z-1.txt' "
    assert preview("z.txt#3") == "'inbox/z.txt' "
    waits = invoke("clean", str(tmp_path), "--forget", "z.txt#3", "--dry-run").output
    decided = invoke("clean", str(tmp_path), "--forget", "z.txt#1", "--dry-run").output
    assert ": question " in waits and "decision" not in waits
    assert ": decision " in decided and "question" not in decided


def test_a_document_of_two_pipelines_is_forgotten_in_the_one_that_is_named(tmp_path: Path) -> None:
    kind = each_document("""\
      - {id: kind, uses: chat, with: {prompt: "Kind of {{ steps.text.text }}"}}
    returns: {file: doc.relpath, text: steps.text.text}
  - id: NAME
    for_each: r in steps.each.results
    do: [{uses: prompt, with: {template: "{{ r.text }}"}}]
""")
    worlds = [World(tmp_path, kind.replace("NAME", n), name=f"{n}.yaml") for n in ("one", "two")]
    worlds[0].write("inbox/zwingen.txt", PERSON)
    worlds[0].write("inbox/b.txt", "another")
    for world in worlds:
        world.run()
    asked = invoke("clean", str(tmp_path), "--forget", "zwingen.txt", "--yes")
    assert "2 documents are known as 'zwingen.txt'" in asked.output
    assert "one.yaml" in asked.output and "two.yaml" in asked.output
    (tmp_path / "inbox/zwingen.txt").unlink()
    done = invoke("clean", str(worlds[0].file), "--forget", "inbox/zwingen.txt", "--yes")
    assert done.exit_code == 0, done.output
    again = invoke("clean", str(worlds[0].file), "--forget", "zwingen.txt", "--yes")
    assert "No document is known here" in again.output
    assert invoke("clean", str(worlds[1].file), "--forget", "zwingen.txt", "--yes").exit_code == 0
    for world in worlds:  # what blocks made of its results goes as of a deleted document
        assert world.run().status == "completed"
    assert invoke("clean", str(tmp_path), "--older-than", "0s").exit_code == 0
    assert PERSON.encode() not in (tmp_path / ".paddock/ledger.sqlite").read_bytes()
