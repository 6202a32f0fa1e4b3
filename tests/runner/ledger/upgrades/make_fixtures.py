"""Make a fixture: a folder with a ledger of this checkout, as text, and what it tells of it.

    PYTHONPATH=EARLIER:. python -P -m tests.runner.ledger.upgrades.make_fixtures make NAME
    PYTHONPATH=EARLIER:. python -P -m tests.runner.ledger.upgrades.make_fixtures expect NAME

`NAME.sql.gz` is the ledger's dump, `NAME.json` the files with their times. `expect` restores both
in a new folder and writes to `NAME.expected.json` what that checkout tells there: plans, runs,
`why`, decisions. The version that follows must tell the same (`test_upgrades`).
"""

import gzip
import json
import os
import re
import sqlite3
import sys
import tempfile
from base64 import b64decode, b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

from paddock.engine.errors import DeadlineExceeded
from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.runner.api import plan, run_until_end
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.folders.folder_identity import folder_identity_at
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.hot_folder import finish_files, make_hot_folders
from tests.runner.core import situations
from tests.runner.core.played_history import (
    files_record,
    neutral,
    plan_record,
    report_record,
    reviews_record,
    why_record,
)
from tests.runner.core.random_histories import in_a_process
from tests.runner.core.test_prompt_examples import WordPool
from tests.runner.world import ALL, ReviewedWorld, run_arguments, settings

HERE = Path(__file__).parent
NAMES = ("6e7386861", "ece012582")
LEDGER = ".paddock/ledger.sqlite"
FOLDERS = ("inbox", "post", "hot/processing", "extra")
"""Their identities are those of the machine: the ledger has them."""
FILING = """\
name: filing
steps:
  - {id: docs, uses: files.scan, with: {root: post}}
  - id: each
    for_each: doc in steps.docs.files
    on_error: skip
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {model: small, prompt: "Bill: {{ steps.text.text }}"}
        reply: {schema: {kind: str}}
        review: {when: "'ask' in steps.text.text"}
      - uses: database.write
        with: {sqlite: books.db, table: bills, rows: [{name: "{{ doc.stem }}"}]}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}
    returns: {file: doc.relpath, kind: steps.bill.output.kind}
  - {id: table, uses: files.write, with: {path: BILLS.csv, rows: "{{ steps.each.results }}"}}
models: {small: {ref: small}}
"""
HOT = """\
name: hot
on: {watch: {path: hot, claim: move}}
models: {small: {ref: small}}
steps:
  - {id: docs, uses: files.scan, with: {root: hot/processing}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: chat, with: {model: small, prompt: "Hot {{ steps.text.text }}"}}
    returns: {file: doc.relpath, kind: steps.kind.text}
  - {id: table, uses: files.write, with: {path: HOT.csv, rows: "{{ steps.each.results }}"}}
"""
SHORT = {
    **{name: text for name, text in situations.FILES.items() if not name.startswith("inbox/")},
    "inbox/a1.txt": "cat ferry\n",
    "page.tpl": "# {{ kind }}\n",
    "inbox/a2.txt": "oak\n",
    "inbox/a3.txt": "sun\n",
    "inbox/b1.txt": "dog bridge\n",
    "inbox/b2.txt": "elm\n",
    "inbox/bad.txt": "this fails\n",
    "inbox/left.txt": "left\n",
    "inbox/sub/a1.txt": "cat ferry\n",
}
SHORTER = re.sub(  # without the tags and the sub-pipeline
    r"      - id: tag\n.*?(?=      - id: topic)|      - \{id: (words|more).*?\n|, tag: [^}]*\}\}\"",
    "", situations.PIPELINE, flags=re.DOTALL,
)  # fmt: skip
PIPELINES = ("pipeline.yaml", "filing.yaml", "hot.yaml")


def answer(request: ChatRequest) -> str:
    if "does not answer" in request.messages[-1].content:
        raise DeadlineExceeded("total", 1.0)
    return situations.answer(request)


def go(folder: Path, name: str, *, ledger_url: str = "", **options: Any) -> Any:
    own = replace(settings(folder), allow=ALL, ledger_url=ledger_url)
    pool = WordPool(answer=answer)
    arguments = run_arguments(local=True, pool=pool, settings=own, **options)
    return run_until_end(folder / name, None, *arguments)


def live(folder: Path) -> None:
    """Leave entries of each kind."""
    case = situations.Case(
        folder, SHORT, SHORTER
    )  # done, decided, edited, rejected, waiting, quarantined, nested
    case.write("filing.yaml", FILING)
    case.write("hot.yaml", HOT)
    with closing(sqlite3.connect(folder / "books.db")) as books, books:
        books.execute("create table bills (name text, paddock_item text)")
    for name in ("one", "two", "ask three", "this fails", "four"):
        case.write(f"post/{name.replace(' ', '-')}.txt", f"bill {name}\n")
    go(folder, "filing.yaml")
    spec = WatchSpec("hot.yaml:hot", folder / "hot", is_hot=True)
    spec.root.mkdir()
    make_hot_folders(spec)
    for name in ("h1.txt", "h2.txt"):
        case.write(f"hot/processing/{name}", f"letter {name}\n")
    go(folder, "hot.yaml")
    state = folder / ".paddock"
    ledger = WatchLedger(
        spec.name, spec.root, folder / "hot.yaml",
        lambda is_readonly: Ledger(state, is_readonly=is_readonly),
    )  # fmt: skip
    assert not finish_files(spec, ["h1.txt"], {}, None, ledger.record_filed).refused
    for n in (1, 2):
        case.write(f"post/late-{n}.txt", f"bill late {n}\n")
    for n in range(8, 60):  # a move that is not finished, and attempts
        in_a_process(folder, lambda: go(folder, "filing.yaml").status, n)
        if rows(folder, "moves") > 0 and rows(folder, "attempts") > 0:
            break
    case.write("inbox/c1.txt", "cat\n")
    case.write("inbox/d1.txt", "does not answer\n")
    (folder / "inbox/b2.txt").unlink()  # deleted, and kept, as no one confirmed it
    (folder / "inbox/a2.txt").rename(folder / "inbox/a8.txt")  # renamed, decided
    case.write("out/b1.txt.md", "mine\n")  # held
    go(folder, "pipeline.yaml")
    case.write("again/b1.txt", "mine, since the last run\n")
    (folder / "inbox/sub/a1.txt").rename(folder / "inbox/sub/a7.txt")  # not seen yet


def rows(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / LEDGER)) as ledger:
        return int(ledger.execute(f"select count(*) from {table}").fetchone()[0])


def make(name: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, "letters")
        folder.mkdir()
        live(folder)
        with closing(sqlite3.connect(folder / LEDGER)) as ledger:
            text = "\n".join(ledger.iterdump())
            counts = {
                table: rows(folder, table)
                for (table,) in ledger.execute("select name from sqlite_master where type='table'")
            }
            states = ledger.execute("select state, count(*) from items group by 1").fetchall()
        print(counts, states)
        for each in FOLDERS:
            identity = json.dumps(folder_identity_at(folder / each).identity)
            text = text.replace(identity, f'"IDENTITY:{each}"')
        text = text.replace(str(folder), "FOLDER").replace(os.uname().nodename, "HOST")
        files = {
            path.relative_to(folder).as_posix(): [_packed(path), path.stat().st_mtime_ns]
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _is_kept(path.relative_to(folder).as_posix())
        }
    (HERE / f"{name}.sql.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (HERE / f"{name}.json").write_text(json.dumps(files, indent=0) + "\n", "utf-8")


def _is_kept(name: str) -> bool:
    left = (LEDGER, "cache/", "answer.json", "trace.txt", ".paddock/logs", ".paddock/runs")
    return not name.startswith(left) and not name.endswith((".lock", "-wal", "-shm"))


def _packed(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "base64:" + b64encode(content).decode()


def restore(name: str, folder: Path) -> None:
    """Make the folder of a fixture again, as it was left."""
    files = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    for each, (text, time_ns) in files.items():
        path = folder / each
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = text.startswith("base64:")
        path.write_bytes(b64decode(text[7:]) if packed else text.encode())
        os.utime(path, ns=(time_ns, time_ns))
    for each in FOLDERS:
        (folder / each).mkdir(parents=True, exist_ok=True)
    for each in ("done", "failed"):
        (folder / "hot" / each).mkdir(exist_ok=True)
    (folder / ".paddock").mkdir(exist_ok=True)
    (folder / ".paddock").chmod(0o700)
    text = gzip.decompress((HERE / f"{name}.sql.gz").read_bytes()).decode()
    text = text.replace("FOLDER", str(folder))
    text = text.replace("HOST", os.uname().nodename)
    for each in FOLDERS:
        identity = json.dumps(folder_identity_at(folder / each).identity)
        text = text.replace(f'"IDENTITY:{each}"', identity)
    with closing(sqlite3.connect(folder / LEDGER)) as ledger:
        ledger.executescript(text)
        ledger.execute("pragma journal_mode = wal")
    (folder / LEDGER).chmod(0o600)


def told(folder: Path) -> dict[str, Any]:
    """Return what is told of the folder of a fixture, before and after runs."""
    own = replace(settings(folder), allow=ALL)
    case = ReviewedWorld(folder, (folder / "pipeline.yaml").read_text("utf-8"))
    found: dict[str, Any] = {"reviews": reviews_record(case)}
    paths = ["out", "words", "again", "T.csv", "DIGEST.md", "BILLS.csv", "HOT.csv", "books.db",
             "inbox/a1.txt", "inbox/b1.txt", "filed/one.txt", "hot/done/h1.txt"]  # fmt: skip
    found["why"] = why_record(folder, [path for path in paths if (folder / path).exists()])
    for name in PIPELINES:
        pool = WordPool(answer=answer)
        given, _ = run_arguments(local=True)
        found[f"plan {name}"] = plan_record(
            plan(folder / name, None, given, pool=pool, settings=own), folder
        )
    for kind in ("run", "again", "pruned"):
        prunes = kind == "pruned"
        for name in PIPELINES:
            report = go(folder, name, is_confirmed=prunes, prune=prunes)
            found[f"{kind} {name}"] = report_record(report, folder)
    with closing(sqlite3.connect(folder / "books.db")) as books:
        found["rows"] = sorted(name for (name,) in books.execute("select name from bills"))
    found["files"] = {
        name: text for name, text in files_record(folder).items() if name not in PIPELINES
    }
    found["reviews after"] = reviews_record(case)
    return dict(neutral(found, folder))


def expect(name: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, "letters")
        folder.mkdir()
        restore(name, folder)
        text = json.dumps(told(folder), indent=0, default=str)
    (HERE / f"{name}.expected.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    {"make": make, "expect": expect}[sys.argv[1]](sys.argv[2])
