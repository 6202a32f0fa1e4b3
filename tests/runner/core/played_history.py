"""One random history, played: its record has no times, no names of runs and no digests of rules.

    python -P tests/runner/core/played_history.py FOLDER edits-1 kills-7

A script that `against` starts with the interpreter of any checkout, so it uses what is stable: the
Python API, `why`'s answer, the commands, and the worlds of that checkout's own `tests`. A history
draws the same whatever a checkout answers: each event has dice of its own. Before the number:

- `edits`: documents, pages, stores, tables, sub-pipelines, blocks in blocks, labels, escalation.
- `reviews`, `moving`: so, with decisions; with the pipeline's file renamed, copied and exchanged.
- `filing`: documents are moved away by steps, in all shapes of `filing_shapes`; decisions, renames.
- `hot`: by the watch of a hot folder, day after day, with kills and full disks.
- `servers`: rows in a database, requests to a server, outputs in a bucket.
- `kills`: runs end at random writes: what is left at the end is recorded alone.
"""

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run_until_end
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from tests.fakes.buckets import S3
from tests.fakes.counting_server import counting_server
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.core import random_histories
from tests.runner.core.filing_days import FilingDays
from tests.runner.core.random_histories import (
    NAMES,
    FilingHistory,
    History,
    Shape,
    answer,
    file_of,
    in_a_process,
    rows_of,
    world_of,
)
from tests.runner.world import ALL, ReviewedWorld, run_arguments, settings

_PRIVATE = ("at", "seconds", "hash", "run", "spec", "digest", "served_digest", "id", "mtime_ns")
_NEUTRAL = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "TIME"),
    (re.compile(r"(run|Run) '[^']+'"), r"\1 'RUN'"),
    (re.compile(r"(127\.0\.0\.1|0\.0\.0\.0|localhost):\d+"), "SERVER"),
    (re.compile(r"papers-[0-9a-f]{32}"), "BUCKET"),
    (re.compile(r'(\\?"id\\?": )\d+'), r"\1ID"),  # a server counts its requests
)
MOST_FILES = 20
"""Of a folder `why` has no more, the latest; those of one run have any order."""
NOT_MADE = (
    "inbox",
    "away",
    "filed",
    "MAIN",
    "OTHER",
    "corrections.json",
    "pipeline.yaml",
    "sub.yaml",
    "t.csv",
)
STATE_FILES = (".paddock", "cache", "state", "answer.json", "trace.txt", "books.db")


def neutral(value: Any, folder: Path) -> Any:
    """Return a value as JSON, without what is of one run or one machine."""
    if isinstance(value, Mapping):
        return {
            neutral(str(key), folder): neutral(inner, folder)
            for key, inner in value.items()
            if key not in _PRIVATE
        }
    if isinstance(value, str):
        text = value.replace(f"{folder}/", "").replace(str(folder), ".")
        for pattern, put in _NEUTRAL:
            text = pattern.sub(put, text)
        return text
    if isinstance(value, list | tuple | set | frozenset):
        return [neutral(inner, folder) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def report_record(report: Report, folder: Path) -> dict[str, Any]:
    items = [
        {**item.as_json(), "why": item.why, "is_known": item.is_known} for item in report.items
    ]
    found = report.as_json() | {
        "items": sorted(items, key=lambda item: (item["step"], item["key"])),
        "notes": sorted(report.notes),
        "written": sorted(report.written),
        "removed": report.n_removed,
        "acted": sorted(report.acted),
        "exit": report.exit_status(),
        "steps": report.steps,
    }
    del found["models"]
    return dict(neutral(found, folder))


def plan_record(found: PlanReport, folder: Path) -> dict[str, Any]:
    facts = found.as_json() | {
        "notes": sorted(found.notes),
        "remarks": sorted(found.remarks),
        "advice": list(found.advice),
        "rows": sorted([*key, why.value] for key, why in found.outdated_rows.items()),
        "has_work": found.has_work,
    }
    facts["items"].sort(key=lambda item: (item["step"], item["key"]))
    return dict(neutral(facts, folder))


def why_record(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    with (
        contextlib.chdir(folder),
        patch("paddock.runner.core.calls.model_pools.LookupPool", lambda _: FakePool()),
    ):
        found = {name: explain_path(folder / name, [folder]).as_json() for name in names}
    for of_path in found.values():  # of items that ran together, any may have written first
        of_path["read_by"] = [_sorted_outputs(text) for text in of_path.get("read_by", ())]
    return dict(neutral(found, folder))


def _sorted_outputs(text: str) -> str:
    item, arrow, outputs = text.partition(" → ")
    return f"{item}{arrow}{', '.join(sorted(outputs.split(', ')))}"


def reviews_record(world: ReviewedWorld) -> list[Any]:
    if not (world.folder / ".paddock/ledger.sqlite").exists():
        return []
    with world.reviews() as reviews:
        known = [(r, True) for r in reviews.waiting(is_whole=True)]
        known += [(r, False) for r in reviews.decided()]
        facts = (
            [r.key, r.step, waits, r.state, str(r.value), r.reason, r.subject.document_sha256]
            for r, waits in known
        )
        return sorted(neutral([*facts], world.folder), key=str)


def files_record(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): neutral(path.read_text("utf-8", "replace"), folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in STATE_FILES
        and not path.name.startswith(".")
        and ".lance/" not in path.as_posix()  # its files have names of their own; `rows` has rows
    }


def decide(folder: Path, chance: random.Random | None = None) -> list[str]:
    """Decide as `random_histories` does, in the order of names: that of times differs."""
    names, corrected = list[str](), random_histories.corrections(folder)
    with world_of(folder).reviews() as reviews:
        for review in sorted(reviews.waiting(is_whole=True), key=_place):
            if chance is None or chance.random() < 0.8:
                document = review.subject.document_sha256
                n_corrected = corrected.get(document, 0)
                verb, value = random_histories.verdict_on(document, n_corrected)
                reviews.decide(review.id, review.question, verb, value, reason="no", by="ann")
                names.append(review.key)
    return [neutral(name, folder) for name in names]


def undo(folder: Path, chance: random.Random, *, corrects: bool = False) -> list[str]:
    corrected, names = random_histories.corrections(folder), list[str]()
    with world_of(folder).reviews() as reviews:
        decided = sorted(reviews.decided(), key=_place)
        documents = sorted({review.subject.document_sha256 for review in decided})
        chosen = {document for document in documents if chance.random() < 0.5}
        for review in decided:
            if review.subject.document_sha256 in chosen:
                reviews.undo(review.id, "ann")
                names.append(review.key)
    if corrects:
        corrected |= {document: corrected.get(document, 0) + 1 for document in chosen}
        text = json.dumps(corrected, sort_keys=True)
        (folder / random_histories.CORRECTIONS).write_text(text, "utf-8")
    return [neutral(name, folder) for name in names]


def _place(review: Any) -> tuple[str, str, str]:
    return review.key, review.step, review.scope


def rebuilt(folder: Path) -> list[str]:
    """Drop the states of items and make them again from their log; return which were others.

    A checkout that keeps no log has nothing to make again.
    """
    try:
        from paddock.runner.ledger.rebuild import rebuild
        from paddock.runner.ledger.run_history import LedgerFolder
    except ImportError:
        return []
    file = folder / ".paddock/ledger.sqlite"
    if not file.exists():
        return []
    result = rebuild(LedgerFolder(file.parent))
    with closing(sqlite3.connect(file)) as ledger, ledger:
        ledger.execute("delete from items")
    rebuild(LedgerFolder(file.parent))
    return [] if result is None else [*result.different]


class Played:
    """What all histories have: dice of each event, and the record of each run."""

    folder: Path
    chance: random.Random
    records: list[Any]
    events: list[str]
    is_beside_another = False
    """Whether another process runs it at once."""
    is_strict = True
    """Whether each run is recorded: what a killed one leaves differs from time to time."""

    @contextlib.contextmanager
    def own_dice(self) -> Iterator[None]:
        dice, self.chance = self.chance, random.Random(self.chance.random())
        yield
        self.chance = dice

    def recorded_run(self, **options: Any) -> dict[str, Any]:
        """Plan and run; return what both said, and what there is then."""
        states = [] if self.is_beside_another else rebuilt(self.folder)
        world = world_of(self.folder)
        own = replace(settings(self.folder), allow=ALL)
        given, _ = run_arguments(local=True, **options)
        record: dict[str, Any] = {"events": neutral(self.events, self.folder), "states": states}
        try:
            planned = plan(world.file, None, given, pool=FakePool(answer=answer), settings=own)
            record["plan"] = plan_record(planned, self.folder)
        except PipelineError as error:
            record["plan"] = neutral(str(error), self.folder)
        pool = FakePool(answer=answer)
        arguments = run_arguments(local=True, pool=pool, settings=own, **options)
        try:
            report = run_until_end(world.file, None, *arguments)
            record["run"] = report_record(report, self.folder)
        except PipelineError as error:
            record["run"] = neutral(str(error), self.folder)
        record["asked"] = sorted(r.messages[-1].content for r in pool.chats)
        files = files_record(self.folder)
        record |= {"files": files, "rows": rows_of(self.folder), "reviews": reviews_record(world)}
        tops = Counter(name.partition("/")[0] for name in files)
        made = sorted(name for name, n in tops.items() if name not in NOT_MADE and n <= MOST_FILES)
        read = [name for name in files if name.startswith(("inbox/", "filed/"))]
        record["why"] = why_record(self.folder, [*made, *read[:2]])
        record["found"] = self.found_elsewhere()
        return record

    def found_elsewhere(self) -> Any:
        """Return what databases and servers have."""
        return None

    def note(self, record: Any) -> None:
        if self.is_strict:
            self.records.append(record)


class WideShape(Shape):
    """Pipelines that also write a database's rows, send requests, and combine groups."""

    servers: Mapping[str, Any] | None = None

    def yaml(self) -> str:
        found = json.loads(super().yaml())
        block = next(n for n in found["steps"] if n["id"] == self.of["block"])
        if self.of.get("index"):
            over = f"{{{{ steps.{self.of['block']}.results }}}}"
            combined = {"over": over, "prompt": "{{ group }}: {{ notes | join(', ') }}", "fanin": 2}
            model = {} if self._is_plain else {"model": "small"}
            found["steps"].append({"id": "combined", "uses": "reduce", "with": combined | model})
        if self.servers is not None:
            rows = [{"name": "{{ doc.relpath }}", "text": "{{ steps.text.text }}"}]
            table = {"sqlite": "books.db", "table": "bills", "rows": rows}
            block["do"].append({"id": "booked", "uses": "database.write", "with": table})
            url = f"http://127.0.0.1:{self.servers['port']}/bills"
            data = {"name": "{{ doc.relpath }}", "text": "{{ steps.text.text }}"}
            sent = {"url": url, "hosts": ["127.0.0.1"], "data": data}
            block["do"].append({"id": "sent", "uses": "http.send", "with": sent})
            sends = {"folder": "out", "bucket": self.servers["bucket"]}
            found["steps"].append({"uses": "files.upload", "with": sends})
        return json.dumps(found, indent=1)


def wide_shape(history: "PlayedHistory", may_review: bool) -> WideShape:
    shape = WideShape(history.chance, is_plain=history.is_plain, may_review=may_review)
    shape.servers = history.servers
    return shape


class PlayedHistory(Played, History):
    """Edits of a folder, and more of what happens to one."""

    def __init__(
        self, seed: int, folder: Path, *, may_review: bool, moves: int | None,
        servers: Mapping[str, Any] | None = None, is_strict: bool = True,
    ) -> None:  # fmt: skip
        self.records, self.servers, self.is_strict = [], servers, is_strict
        if servers is not None:
            with closing(sqlite3.connect(folder / "books.db")) as books, books:
                books.execute("create table bills (name text, text text, paddock_item text)")
        with patch.object(random_histories, "Shape", lambda *_, **__: wide_shape(self, may_review)):
            super().__init__(seed, folder, may_review=may_review, moves=moves)
        (folder / "away").mkdir()

    def found_elsewhere(self) -> Any:
        if self.servers is None:
            return None
        with closing(sqlite3.connect(self.folder / "books.db")) as books:
            rows = sorted(map(list, books.execute("select name, text from bills")))
        sent_files = self.servers["objects"]().items()
        bucket = {name: neutral(text.decode(), self.folder) for name, text in sent_files}
        sent = sorted(self.servers["server"].answered.items())
        return {"rows": rows, "bucket": bucket, "sent": sent}

    def change(self) -> None:
        with self.own_dice():
            if self.chance.random() < 0.5:
                super().change()
                return
            kinds = ("out", "back", "same", "touch", "swap", "output", "output", "replace", "clean")
            kind = self.chance.choice((*kinds, "forget", "restore"))
            documents = self.documents()
            away = sorted(p for p in (self.folder / "away").rglob("*") if p.is_file())
            outputs = [*random_histories.files_of(self.folder)]
            done = ""
            if kind == "out" and documents:
                done = self._moved(self.chance.choice(documents), "inbox", "away")
            elif kind == "back" and away:
                done = self._moved(self.chance.choice(away), "away", "inbox")
            elif kind == "same" and documents:
                document = self.chance.choice(documents)
                text = document.read_text("utf-8")
                name = f"{self.chance.choice(('sub', 'old'))}/{document.name}"
                if document.name not in ("sub", "old"):
                    self.free_path(name).write_text(text, "utf-8")
                    done = name
            elif kind == "touch" and documents:
                document = self.chance.choice(documents)
                os.utime(document, (1_700_000_000 + len(self.events),) * 2)
                done = document.name
            elif kind == "swap" and len(documents) > 1:
                first, second = self.chance.sample(documents, 2)
                texts = second.read_text("utf-8"), first.read_text("utf-8")
                for document, text in zip((first, second), texts, strict=True):
                    document.write_text(text, "utf-8")
                done = f"{first.name} {second.name}"
            elif kind == "restore":
                self.write(self.chance.choice(NAMES))
                done = "a text that was"
            elif kind in ("output", "replace") and outputs:
                name = self.chance.choice(outputs)
                output = self.folder / name
                text = "of another" if kind == "replace" else f"{output.read_text('utf-8')} mine"
                output.unlink()
                output.write_text(text, "utf-8")
                done = name
            elif kind == "forget" and documents:
                done = self._forget(self.chance.choice(documents))
            elif kind == "clean":
                done = self._command("clean", str(self.folder), "--older-than", "0s")
            self.events.append(f"{kind} {done}")

    def _moved(self, document: Path, source: str, target: str) -> str:
        name = document.relative_to(self.folder / source)
        if target == "inbox":
            place = self.free_path(name.as_posix())
        else:
            place = self.folder / target / name.as_posix().replace("/", "-")
        document.rename(place)
        return name.as_posix()

    def _forget(self, document: Path) -> str:
        file = str(self.folder / file_of(self.folder))
        with contextlib.chdir(self.folder):
            name = document.relative_to(self.folder).as_posix()
            return self._command("clean", file, "--forget", name, "--yes")

    def _command(self, *words: str) -> str:
        ended = invoke(*words)
        return f"{ended.exit_code} {neutral(_without_sizes(ended.output), self.folder)}"

    def run_somehow(self) -> None:
        with self.own_dice():
            self.move_pipeline()
            chance = self.chance.random
            options: dict[str, Any] = {"is_confirmed": chance() < 0.7, "prune": chance() < 0.25}
            options["takes_over"] = chance() < 0.15
            options["retry_failed"] = chance() < 0.2
            options["no_cache"] = chance() < 0.1
            options["refresh"] = chance() < 0.1
            if not options["prune"] and chance() < 0.15:
                options["sample"] = ItemSample(2)
            if chance() < 0.1:
                options["force"] = [self.shape.of["block"]]
            documents = [p.relative_to(self.folder / "inbox").as_posix() for p in self.documents()]
            if chance() < 0.1 and documents and not options["prune"]:
                options["only"] = [self.chance.choice(documents)]
            if self.shape.review:
                modes = ("ask", "ask", "ask", "skip", "fail", "accept")
                options["review"] = self.chance.choice(modes)
            kill = self.chance.randint(1, 40) if not self.is_strict and chance() < 0.5 else 0
            told = {key: value for key, value in options.items() if value}
            self.events.append(f"run {told}{f' killed at {kill}' * bool(kill)}")
            at_once = self.is_strict and chance() < 0.1 and self.servers is None
            if at_once:
                self.note(self._run_twice(options))
            elif kill:
                in_a_process(self.folder, lambda: self.recorded_run(**options), kill)
            else:
                self.note(self._run(options))

    def _run(self, options: dict[str, Any]) -> Any:
        if self.shape.may_store:
            return in_a_process(self.folder, lambda: self.recorded_run(**options))
        return self.recorded_run(**options)

    def _run_twice(self, options: dict[str, Any]) -> Any:
        """Run it in two processes at once; of the two what both did, and what is there then."""
        first = os.fork()
        place = self.folder / "answer-2.json"
        if not first:
            code = 1
            try:
                place.write_text(json.dumps(self._counts(options)), "utf-8")
                code = 0
            finally:
                os._exit(code)
        mine = in_a_process(self.folder, lambda: self._counts(options))
        os.waitpid(first, 0)
        theirs = json.loads(place.read_text("utf-8"))
        place.unlink()
        told = {"is_confirmed": True}
        return [sorted((mine, theirs), key=str), self._run(told)]

    def _counts(self, options: dict[str, Any]) -> Any:
        self.is_beside_another = True  # in a process of its own
        record = self.recorded_run(**options)["run"]
        return record if isinstance(record, str) else {
            key: record[key] for key in ("status", "counts", "calls", "cached_calls", "outdated")
        }  # fmt: skip

    def end(self) -> None:
        """Decide all that waits, try what failed again, and then remove what is outdated."""
        for name in ("copy.yaml", file_of(self.folder, random_histories.OTHERS)):
            (self.folder / name).unlink(missing_ok=True)
        last: Any = None
        for options in ({"retry_failed": True}, {"retry_failed": True}, {}):
            last = self._run({"is_confirmed": True, **options})
            self.note(last)
            decide(self.folder)
        for _ in range(3):
            last = self._run({"is_confirmed": True, "prune": True, "takes_over": True})
            self.note(last)
            decide(self.folder)
        if not self.is_strict:
            kept = ("files", "rows", "found", "plan", "reviews")
            counts = last["run"] if isinstance(last["run"], str) else last["run"]["counts"]
            self.records.append({"counts": counts})
            self.records.append({key: last[key] for key in kept})


class PlayedFiling(Played, FilingHistory):
    """Filed documents; no kills, since a killed run's next one differs from time to time."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.records = []
        moves = seed if seed % 3 == 0 else None
        super().__init__(seed, folder, may_review=seed % 2 == 0, moves=moves)

    def change(self) -> None:
        with self.own_dice():
            super().change()

    def run_somehow(self) -> None:
        with self.own_dice():
            self.move_pipeline()
            chance = self.chance.random
            options: dict[str, Any] = {"is_confirmed": chance() < 0.7, "prune": chance() < 0.15}
            options["retry_failed"] = chance() < 0.3
            if not options["prune"] and chance() < 0.1:
                options["sample"] = ItemSample(2)
            elif chance() < 0.1:
                options["force"] = ["sub.each" if "sub" in self.form else "each"]
            self.events.append(f"run { {k: v for k, v in options.items() if v} }")
            self.note(self.recorded_run(**options))
            self.note_filed()

    def end(self) -> None:
        for name in ("copy.yaml", file_of(self.folder, random_histories.OTHERS)):
            (self.folder / name).unlink(missing_ok=True)
        for prune in (False, False, False, True):
            self.note(self.recorded_run(is_confirmed=True, prune=prune, retry_failed=True))
            decide(self.folder)
            if prune is False and self.review:
                undone = undo(self.folder, random.Random(1), corrects=True)
                self.events.append(f"corrected {sorted(undone)}")


class PlayedDays(Played, FilingDays):
    """Days of a hot folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.records, self.events = [], []
        super().__init__(folder, ("hot", "hand")[seed % 2], seed)

    def check(self, day: int) -> None:
        (self.folder / random_histories.MAIN).write_text(self.world.file.name, "utf-8")
        self.events.append(f"day {day}: {sorted(self.filed)}")
        rows = self.rows()
        record = self.recorded_run(is_confirmed=True)
        self.note([rows == sorted(self.filed), record])


def _without_sizes(text: str) -> str:
    return re.sub(r"[\d.,]+ ?([kKMG]?B|bytes?|rows?)\b", "SIZE", text)


def played(name: str, folder: Path) -> list[Any]:
    way, seed = name.rpartition("-")[0], int(name.rpartition("-")[2])
    if way == "hot":
        days = PlayedDays(seed, folder)
        for day in range(1, 16):
            days.live(day)
        return days.records
    if way == "filing":
        return lived(PlayedFiling(seed, folder))
    moves = seed if way == "moving" else None
    if way != "servers":
        is_strict = way != "kills"
        return lived(
            PlayedHistory(
                seed, folder, may_review=way == "reviews", moves=moves, is_strict=is_strict
            )
        )
    with counting_server() as server:
        servers: dict[str, Any] = {"port": server.port, "server": server}
        bucket = S3()
        servers["bucket"] = {"url": bucket.url, "options": bucket.options}
        servers["objects"] = bucket.objects
        try:
            return lived(PlayedHistory(seed, folder, may_review=False, moves=None, servers=servers))
        finally:
            bucket.stop()


def lived(history: Any) -> list[Any]:
    for _ in range(history.chance.randint(2, 5)):
        for _ in range(history.chance.randint(1, 4)):
            history.change()
        history.run_somehow()
    history.end()
    return list(history.records)


@contextlib.contextmanager
def _own_folder(name: str) -> Iterator[Path]:
    """Make the folder of a history, by the same path each time: samples draw by keys, also paths.

    While the same history is played beside it, it has another one.
    """
    folder = Path(tempfile.gettempdir(), f"paddock-played-{name}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    with tempfile.TemporaryDirectory() as other:
        yield Path(other)


def main(place: str, *names: str) -> None:
    random_histories.import_all()
    listed = random_histories.files_of
    random_histories.decide, random_histories.undo = decide, undo
    random_histories.files_of = lambda folder: dict(sorted(listed(folder).items()))
    for name in names:
        with _own_folder(name) as above:
            folder, records = Path(above, "letters"), list[Any]()
            folder.mkdir()
            try:
                records = played(name, folder)
            except Exception as error:  # its lines of code are those of a checkout
                records = ["error", neutral(traceback.format_exception_only(error), folder)]
        Path(place, name).write_text(json.dumps(records, default=str, indent=0), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
