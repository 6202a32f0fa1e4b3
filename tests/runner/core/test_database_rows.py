"""Rows of items in SQLite and a real PostgreSQL: as the documents are, beside rows of others."""

import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.runner.testing.suite_runner import SuiteOptions, read_suite, run_suites
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.postgres import Postgres
from tests.runner.killed_runs import kill_runs, run_to_end
from tests.runner.world import ALL, Notes, World, carried_out, errors, states

N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "8"))
PASSWORD = "geheim-17"
COLUMNS = "name text, line text, total numeric(10,2), day date, paddock_item text"
PIPELINE = """\
secrets: {db: {env: DB_PASSWORD}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: lines, uses: files.rows, with: {path: "{{ doc.path }}"}}
      - uses: database.write
        with:
          WHERE
          table: bills
          rows: "{{ steps.lines.rows }}"
    returns: {file: doc.relpath}
returns: steps.each.counts
"""
_numbers = count()


class Office(World):
    """Documents with rows of bills, and a database that has their table."""

    def __init__(self, folder: Path, where: str, ask: Callable[[str], Sequence[Any]]) -> None:
        super().__init__(folder, PIPELINE.replace("WHERE", where))
        self.ask = ask
        ask(f"create table bills ({COLUMNS})")
        ask("insert into bills values ('theirs', 'of others', 1, null, null)")

    def bill(self, name: str, *totals: object, day: str = "2026-03-01") -> None:
        lines = [f"{name},{n},{total},{day}" for n, total in enumerate(totals)]
        self.write(f"inbox/{name}.csv", "\n".join(("name,line,total,day", *lines, "")))

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, observer=notes, **wishes), notes.texts

    def planned(self) -> PlanReport:
        return self.plan(allow=ALL)

    def rows(self) -> list[str]:
        found = self.ask("select name, total from bills where name <> 'theirs' order by 1, 2")
        assert len(self.ask("select 1 from bills where name = 'theirs'")) == 1
        return [f"{name} {float(total):g}" for name, total in found]


@pytest.fixture(params=["sqlite", "postgres"])
def office(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Office:
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    if request.param == "sqlite":

        def ask_file(query: str) -> Sequence[Any]:
            with closing(sqlite3.connect(tmp_path / "books.db")) as books, books:
                return books.execute(query).fetchall()

        return Office(tmp_path, "sqlite: books.db", ask_file)
    server: Postgres = request.getfixturevalue("server")
    name = f"books{next(_numbers)}"
    url = server.make(name)

    def ask_server(query: str) -> Sequence[Any]:
        with psycopg.connect(url, autocommit=True) as books:
            cursor = books.execute(query.encode())
            return cursor.fetchall() if cursor.description else ()

    account = f"postgres: {{host: 127.0.0.1, port: {server.port}, database: {name}, "
    account += 'user: postgres, password: "{{ secrets.db }}", tls: off}'
    return Office(tmp_path, account, ask_server)


def test_rows_follow_their_documents_and_those_of_others_stay(office: Office) -> None:
    office.bill("a", 1, "2.50")
    office.bill("b", 3)
    report, notes = office.go()
    assert (report.status, notes) == ("completed", [])
    assert office.rows() == ["a 1", "a 2.5", "b 3"]
    office.bill("a", 7)  # changed
    (office.folder / "inbox/b.csv").rename(office.folder / "inbox/c.csv")
    office.bill("d", 4)
    assert states(office.planned()) == {"a.csv": "changed", "c.csv": "new", "d.csv": "new"}
    office.go()
    assert office.rows() == ["a 7", "b 3", "d 4"]
    (office.folder / "inbox/a.csv").unlink()
    (gone,) = office.planned().outdated
    assert gone.startswith("1 row of ")
    assert gone.endswith("/bills")
    _, notes = office.go()
    assert office.rows() == ["a 7", "b 3", "d 4"]
    office.go(prune=True)
    assert office.rows() == ["b 3", "d 4"]
    report, _ = office.go()
    assert (report.returns["fresh"], report.returns["stale"]) == (2, 0)


def test_rows_that_someone_removed_are_written_again(office: Office) -> None:
    office.bill("a", 1, 2)
    office.go()
    office.ask("delete from bills where total = 2")
    report, _ = office.go()
    assert (report.returns["stale"], office.rows()) == (1, ["a 1", "a 2"])


def test_a_unique_key_does_not_stand_in_the_way_of_a_renamed_document(office: Office) -> None:
    office.ask("create unique index one on bills (name, line)")
    office.bill("a", 1)
    office.go()
    (office.folder / "inbox/a.csv").rename(office.folder / "inbox/z.csv")
    report, _ = office.go()
    assert (report.status, office.rows()) == ("completed", ["a 1"])


def test_items_that_exchange_a_unique_key_do_so_once_one_of_the_rows_is_deleted(
    office: Office,
) -> None:
    office.ask("create unique index one on bills (total)")
    office.bill("a", 11)
    office.bill("b", 12)
    office.go()
    office.bill("a", 12)
    office.bill("b", 11)
    report, _ = office.go()
    assert (len(errors(report)), office.rows()) == (2, ["a 11", "b 12"])
    office.ask("delete from bills where total = 12")
    for _ in range(2):
        office.go(retry_failed=True)
    assert office.rows() == ["a 12", "b 11"]


def test_a_step_that_goes_takes_its_rows_with_it(office: Office) -> None:
    office.bill("a", 1)
    office.go()
    office.edit("id: each", "id: others")
    office.edit("steps.each.counts", "steps.others.counts")
    office.go()
    assert office.rows() == ["a 1"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            "alter table bills drop column day",
            """lacks 1 column: 'day'. Make it: `alter table "bills" add column "day" text`.""",
        ),
        (
            "alter table bills drop column paddock_item",
            'alter table "bills" add column "paddock_item" text',
        ),
        (
            "drop table bills",
            """no table 'bills'. Make it: `create table "bills" ("paddock_item" text, "name" """,
        ),
    ],
)
def test_what_the_table_lacks_is_told_with_the_statement_that_helps(
    office: Office, spoil: str, said: str
) -> None:
    office.bill("a", 1)
    office.ask(spoil)
    report, _ = office.go()
    (error,) = errors(report).values()
    assert said in error
    made = error.split("Make it: `")[1].split("`")[0]
    for statement in made.split("; "):
        office.ask(statement)
    if "drop table" in spoil:
        office.ask("insert into bills (name) values ('theirs')")
    report, _ = office.go()
    assert (report.status, office.rows()) == ("completed", ["a 1"])


@pytest.mark.parametrize(
    ("total", "day", "said"),
    [
        ("many", "2026-03-01", "column 'total' of 'bills' in "),
        ("1.005", "2026-03-01", "is of the type decimal(10,2), and row 1 has '1.005' there."),
        ("1", "soon", "is of the type date, and row 1 has 'soon' there."),
    ],
)
def test_a_value_of_another_type_is_told_and_leaves_the_former_rows(
    office: Office, total: str, day: str, said: str
) -> None:
    office.bill("a", 1)
    office.go()
    office.bill("a", total, day=day)
    office.bill("b", 2)
    report, _ = office.go()
    (error,) = errors(report).values()
    assert said in error
    assert office.rows() == ["a 1", "b 2"]


def test_a_document_cannot_say_whose_its_rows_are(office: Office) -> None:
    office.bill("a", 1)
    office.go()
    ((stamp,),) = office.ask("select paddock_item from bills where name = 'a'")
    office.write("inbox/b.csv", f"name,total,paddock_item\nb,2,{stamp}\n")
    report, _ = office.go()
    assert "a row has the column 'paddock_item'" in errors(report)["b.csv"]
    assert office.rows() == ["a 1"]


@pytest.mark.parametrize("office", ["postgres"], indirect=True)
def test_two_accounts_of_one_database_are_told_apart(office: Office) -> None:
    """One connection serves all steps: another user's rights are not borrowed."""
    office.bill("a", 1)
    step = office.text[
        office.text.index("      - uses: database") : office.text.index("    returns")
    ]
    office.edit("    returns", step.replace("user: postgres", "user: clerk") + "    returns")
    report, _ = office.go()
    assert "another step writes there as 'postgres'" in errors(report)["a.csv"]


def test_no_password_is_in_the_ledger_nor_in_an_error_and_another_makes_nothing_stale(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.bill("a", 1)
    office.go()
    for file in (office.folder / ".paddock").rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()
    monkeypatch.setenv("DB_PASSWORD", "another-one")
    report, _ = office.go()
    assert (report.returns["fresh"], report.returns["stale"]) == (1, 0)


def test_a_plan_and_a_test_write_nothing(office: Office) -> None:
    office.bill("a", 1)
    assert states(office.planned()) == {"a.csv": "new"}
    assert office.rows() == []
    office.write(
        "pipeline.yaml", f"{office.text}tests: [{{name: dry, expect: [{{exists: inbox}}]}}]\n"
    )
    options = SuiteOptions("auto", pool=FakePool(), flags={"allow": ",".join(ALL)})
    (suite,) = run_suites([read_suite(office.file)], options)
    assert ([case.passed for case in suite.cases], office.rows()) == ([True], [])


def test_a_server_that_is_away_loses_nothing(office: Office) -> None:
    office.bill("a", 1)
    office.bill("b", 2)
    office.go()
    if "sqlite" in office.text:
        place, away = office.folder / "books.db", office.folder / "away.db"
        place.rename(away)
        said = "'books.db' is not there. Make it: `sqlite3 books.db`."
        office.bill("a", 5)
        report, _ = office.go()
        assert said in errors(report)["a.csv"]
        away.rename(place)
    else:
        at = office.text.split("port: ")[1].split(",")[0]
        office.edit(f"port: {at}", "port: 9")
        report, _ = office.go()  # another account is another place: all is written there
        assert "cannot be used: connection failed" in errors(report)["a.csv"]
        office.edit("port: 9", f"port: {at}")
        office.bill("a", 5)
    office.go()
    assert office.rows() == ["a 5", "b 2"]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("host: example.org, port: 9, ", "is elsewhere, and would see the password. Remove `tls"),
        ("host: 127.0.0.1, port: PORT, tls: on, ", "server does not support SSL"),
    ],
)
def test_a_server_that_could_be_another_one_is_not_shown_the_password(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch, new: str, said: str
) -> None:
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    where = "postgres: {database: postgres, user: postgres, password: '{{ secrets.db }}', NEW}"
    new = new.replace("PORT", str(server.port)) + ("" if "tls" in new else "tls: off")
    office = Office(tmp_path, where.replace("NEW", new), lambda query: ())
    office.bill("a", 1)
    report, _ = office.go()
    assert said in f"{errors(report)} {report.message}"
    assert PASSWORD not in f"{errors(report)} {report.message}"


@pytest.mark.parametrize("office", ["postgres"], indirect=True)
def test_two_steps_write_to_a_server_by_one_account(office: Office) -> None:
    office.bill("a", 1)
    step = office.text[office.text.index("      - uses: database.write") :].split("    returns")[0]
    office.edit(step, step + step.replace("user: postgres", "user: other"))
    report, _ = office.go()
    said = "another step writes there as 'postgres', by another account. Let both have the same."
    assert said in errors(report)["a.csv"]


@pytest.mark.parametrize("office", ["postgres"], indirect=True)
def test_a_server_needs_consent_and_none_is_chosen_by_a_document(office: Office) -> None:
    office.bill("a", 1)
    with pytest.raises(PipelineError, match="write rows as postgres at"):
        office.run(allow=["secrets"])
    office.edit("host: 127.0.0.1", 'host: "{{ doc.stem }}"')
    with pytest.raises(PipelineError, match=r"untrusted text \(doc.stem\) in its `postgres`"):
        office.go()


def expected_rows(office: Office) -> list[str]:
    texts = [path.read_text() for path in (office.folder / "inbox").glob("*.csv")]
    rows = [line.split(",") for text in texts for line in text.splitlines()[1:]]
    return sorted(f"{name} {float(total):g}" for name, _, total, _ in rows)


def test_runs_that_are_killed_at_random_leave_the_rows_of_one_from_scratch(
    office: Office, fork_server: ForkServer
) -> None:
    dice = random.Random(office.folder.name.split("[")[0])
    names, n_between = [f"d{n}" for n in range(40)], 0

    def change() -> None:
        nonlocal n_between
        n_between += sorted(office.rows()) != expected_rows(office)  # since the last kill
        for name in dice.sample(names, 6):
            office.bill(name, *(dice.randint(1, 99) for _ in range(dice.randint(0, 3))))
        for name in dice.sample(names, 2):
            (office.folder / f"inbox/{name}.csv").unlink(missing_ok=True)

    kill_runs(fork_server, office, N_KILLS, dice, change, "--prune", "--yes")
    run_to_end(fork_server, office, "--prune", "--yes")
    expected = expected_rows(office)
    print(f"{N_KILLS} kills, {n_between} with work left; {len(expected)} rows as from scratch")
    assert sorted(office.rows()) == expected
    assert n_between
