"""Random histories of a folder: after `--prune` it is as a run from scratch makes it.

    python -m tests.runner.core.random_histories --histories 1000 --seed 1
    python -m tests.runner.core.random_histories --histories 1 --seed 100261 200208 --plain

A history edits, renames and deletes documents, changes the pipeline, and runs it between these,
sometimes killed at a random write. Then, without `--prune`, the run has to name exactly the files
that a run from scratch does not make; with it, files and rows have to be those of that run. Blocks
over results are behind the first, and a document takes the name of a folder, or the reverse: then
items may wait until something in their way is pruned. A run that is killed has a process of its
own, so that it loses what a real one does.

With `--filing` documents are moved away when they are done: then the table has the rows that all
arrivals give when they are replayed one by one, whatever became of the files; the table is over a
block, a second or third one, or what a sub-pipeline returns. Some runs are forced, or do a sample.

With `--reviews` answers wait for a person, who decides by the document alone, sometimes decides
nothing for a while, rejects some, and undoes or corrects decisions, to a rejection and back, also
on documents that are gone or filed by then. In the end nothing waits, and what is filed lies where
the last decision puts it, or has no row where that is a rejection, and is counted as rejected.

With `--moving` the pipeline's file is renamed, edited or not, copied, deleted and put back, and
exchanges its name with another pipeline, which is deleted in the end: all that it made is named.

With `--plain` no larger model is asked, nothing is labelled, no step runs a pipeline, no rows are
read and no run takes a sample: a seed makes what it made before there was that.

Before each run that is not killed it is planned: the run then does what the plan names, asks as
often as that says, and leaves or removes what it calls outdated.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence, Set
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from paddock.engine.request import ChatRequest
from paddock.engine.system.files import TEMPORARY_SUFFIX, TemporaryFile
from paddock.engine.system.item_samples import ItemSample
from paddock.pipelines.errors import PipelineError
from paddock.runner.core import session
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.item_states import WORK
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.steps.readers.reader_pool import ReaderPool
from paddock.steps.vectors.open_stores import OpenStores
from tests.fakes.pool import FakePool, echo
from tests.runner.core.filing_shapes import DECIDED_ALONE, FILES_RESULTS, SHAPES, pipeline_files
from tests.runner.core.test_label_lists import enum_of
from tests.runner.world import ReviewedWorld, World

TEXTS = ("keep me", "drop me", "keep two words", "bad", "keep bad", "one two three", "keep", "a b")
NAMES = ("a.txt", "b.txt", "c.txt", "sub/d.txt", "sub/e.txt")
PRICES = (10, 20)  # so few that they come back
LABELS = ("red", "green", "blue", "grey")
OF_RESULTS = ("INDEX", "INDEX.txt", "TABLE.csv", "TABLE.jsonl", "COUNTS")
OTHER = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: word in ['one', 'two']
    do: [{uses: files.write, with: {path: "else/{{ word }}", text: "{{ word }}"}}]
"""
MAIN, OTHERS = "MAIN", "OTHER"
CORRECTIONS = "corrections.json"
COPIED = ("*.yaml", MAIN, CORRECTIONS)
"""Files with the names of those of the pipeline, and of the other one."""
FILES = ("pipeline.yaml", "bills.yaml", "letters.yaml", "mail.yaml")
OUTPUTS = (
    "else",
    "out",
    "other",
    "parts",
    "copies",
    "tags",
    "subs",
    "rows",
    "both",
    "LIST",
    *OF_RESULTS,
    "again",
    "third",
)
KILLED = 9
OF_SUBS = ("sub", "sub_if", "sub_page", "sub_page_if", "sub_path")
OF_ROWS = (
    "rows",
    "row_path",
    "row_key",
    "digits",
    "limit",
    "both_if",
    "counted",
    "part_path",
    "sub_parts",
)
OF_AGAIN = ("again", "again_path", "again_key", "third")
LEFT_FOLDERS = ("again/", "third/")
NOT_PLAIN = (
    *OF_AGAIN,
    "escalate",
    "tag",
    "labels",
    "table",
    "delimiter",
    "listed",
    *OF_SUBS,
    *OF_ROWS,
)
STORES = 0.1  # a child process imports LanceDB for a second


class Shape:
    """What a history may change of the pipeline."""

    CHOICES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "block": ("each", "every"),
        "page": ("page", "sheet", None),
        "page_if": (None, "'keep' in steps.text.text", "false", "not steps.text.text == 'a b'"),
        "page_path": (
            "out/{{ doc.relpath }}.md",
            "other/{{ doc.relpath }}",
            "out/{{ steps.kind.text | slug }}/{{ doc.relpath }}",
            "out/{{ doc.sha256[:6] }}-{{ doc.stem }}",
        ),
        "fails": (None, "bad", "two"),
        "prompt": ("Kind of {{ steps.text.text }}", "Which kind? {{ steps.text.text }}"),
        "escalate": (None, "'two' in text", "'keep' in text", "true"),
        "tag": (None, None, "affected", "all"),
        "labels": (LABELS[:2], LABELS[1:], LABELS, (*LABELS[:2], "gold")),
        "where": (None, "doc.name != 'a.txt'", "doc.size > 5"),
        "key": (None, "doc.relpath", "doc.stem"),
        "parts": (None, "parts", "pieces"),
        "parts_if": (None, "'keep' in steps.text.text", "false"),
        "deep": (None, "deep"),
        "copy_if": (None, "'drop' in steps.text.text", "false"),
        "index_if": (None, "steps.BLOCK.results | length > 2", "false"),
        "index": ("INDEX", "INDEX.txt", None),
        "table": (None, "TABLE.csv", "TABLE.jsonl"),
        "delimiter": (",", ";"),
        "listed": (None, "LIST"),
        "second_if": ("false", "true", "steps.docs.files | length > 2"),
        "second_path": ("out/second-{{ doc.stem }}", "other/second/{{ doc.stem }}"),
        "each_if": (None, None, "steps.docs.files | length > 1"),
        "store": (None, "store"),
        "store_if": (None, "'keep' in steps.text.text"),
        "sub": (None, "sub", "inner"),
        "sub_if": (None, None, "'keep' in steps.text.text", "false"),
        "sub_page": ("page", "sheet", None),
        "sub_page_if": (None, None, "'keep' in inputs.text", "inputs.name != 'b.txt'"),
        "sub_path": ("subs/{{ inputs.name }}", "subs/{{ inputs.name | slug }}.md"),
        "rows": ("priced", "lines", None),
        "row_path": ("rows/{{ row.id }}.txt", "rows/{{ loop.index }}.txt"),
        "row_key": (None, None, "row.id ~ ''"),
        "limit": (10, 10, 20, None),
        "digits": ("digits", None),
        "both_if": (None, None, "steps.docs.files | length > 2"),
        "counted": (None, "COUNTS"),
        "part_path": (
            "parts/{{ doc.relpath }}/{{ word }}",
            "parts/{{ doc.relpath }}/{{ loop.index }}",
        ),
        "sub_parts": (None, "halves", "words"),
        "again": ("again", "more", None),
        "again_path": ("again/{{ NAME }}", "again/{{ NAME | slug }}.md"),
        "again_key": (None, "NAME"),
        "third": (None, "third"),
    }

    def __init__(self, chance: random.Random, *, is_plain: bool, may_review: bool) -> None:
        self._chance = chance
        self._is_plain = is_plain
        self.may_store = chance.random() < STORES
        self.of = {name: choices[0] for name, choices in self.CHOICES.items()}
        # Decided answers count where no one would be asked any more, so it stays.
        self.review = chance.choice(("true", "'keep' in text")) if may_review else None
        for _ in range(6 if is_plain else 9):
            self.change()

    def change(self) -> str:
        names = [name for name in self.CHOICES if self.may_store or "store" not in name]
        name = self._chance.choice(
            [name for name in names if not self._is_plain or name not in NOT_PLAIN]
        )
        self.of[name] = self._chance.choice(self.CHOICES[name])
        return f"{name}: {self.of[name]}"

    def yaml(self) -> str:
        """Return the pipeline."""
        of, step = self.of, _step
        body = [
            step("text", "files.read", {"path": "{{ doc.path }}"}),
            step("kind", "chat", {"prompt": of["prompt"]} | self._model),
        ]
        if of["escalate"] and not self.review:
            body[-1]["escalate"] = {"to": "big", "when": of["escalate"]}
        if self.review:
            body[-1]["review"] = {"when": self.review}
        if of["tag"]:
            choice = {"choose": f"{list(of['labels'])}", "relabel": of["tag"]}
            tag = step("tag", "chat", {"prompt": "Tag {{ steps.text.text }}"} | self._model)
            body.append({**tag, "reply": {"schema": {"tag": choice}}})
            named = {"path": "tags/{{ doc.relpath }}", "text": "{{ steps.tag.output.tag }}"}
            body.append(step("tagged", "files.write", named))
        if of["copy_if"] != "false":
            copy = {"path": "{{ doc.path }}", "to": "copies/{{ doc.relpath }}.c", "mode": "copy"}
            body.append(step("copy", "files.move", copy, of["copy_if"]))
        if of["page"]:
            page = {"path": of["page_path"], "text": "{{ steps.kind.text }}"}
            body.append(step(of["page"], "files.write", page, of["page_if"]))
        if of["store"]:
            store = {"texts": ["{{ steps.text.text }}"], "store": of["store"]}
            body.append(step("rows", "embed", store, of["store_if"]))
        if of["fails"]:
            broken = f"{{{{ 1 / (0 if '{of['fails']}' in steps.text.text else 1) }}}}"
            body.append(step("fails", "prompt", {"template": broken}))
        if of["parts"]:
            body.append(self._parts())
        if of["sub"]:
            given = {"name": "{{ doc.relpath }}", "text": "{{ steps.text.text }}"}
            sub = {"file": "sub.yaml", "inputs": given}
            body.append(step(of["sub"], "pipeline", sub, of["sub_if"]))
        nodes = [
            step("docs", "files.scan", {"root": "inbox"}),
            self._block(of["block"], body, of["each_if"]),
            self._second(),
        ]
        if of["index"]:
            condition = of["index_if"] and of["index_if"].replace("BLOCK", of["block"])
            text = f"{{{{ steps.{of['block']}.results | length }}}} of them"
            nodes.append(
                step("index", "files.write", {"path": of["index"], "text": text}, condition)
            )
        if of["table"]:  # steps without a model outside of blocks, one behind the other
            table = {"path": of["table"], "rows": f"{{{{ steps.{of['block']}.results }}}}"}
            table |= {"delimiter": of["delimiter"]} if of["table"].endswith(".csv") else {}
            nodes.append(step("table", "files.write", table))
            copy = {"path": "{{ steps.table.path }}", "to": "copies/", "mode": "copy"}
            nodes.append(step("kept", "files.move", copy))
        if of["listed"]:
            listed = "{{ steps.docs.files | map(attribute='relpath') | join(' ') }}"
            nodes.append(step("listed", "files.write", {"path": of["listed"], "text": listed}))
        if of["counted"]:
            counts = f"steps.{of['block']}.counts"
            text = (
                f"{{{{ {counts}.done }}}} of {{{{ {counts}.skipped }}}}, {{{{ {counts}.failed }}}}"
            )
            nodes.append(step("counted", "files.write", {"path": of["counted"], "text": text}))
        if not self._is_plain:
            nodes += [*self._of_rows(), *self._of_results()]
        models = {"models": {"small": {"ref": "small"}, "big": {"ref": "big"}}}
        return json.dumps(({} if self._is_plain else models) | {"steps": nodes}, indent=1)

    def sub_yaml(self) -> str:
        """Return the pipeline that a step runs for each document."""
        nodes = [_step("say", "prompt", {"template": "Part {{ inputs.text }}"})]
        if self.of["sub_page"]:
            page = {"path": self.of["sub_path"], "text": "{{ steps.say.text }}"}
            nodes.append(_step(self.of["sub_page"], "files.write", page, self.of["sub_page_if"]))
        if self.of["sub_parts"]:
            part = {"path": "subs/{{ inputs.name }}-{{ loop.index }}", "text": "{{ word }}"}
            over = "word in inputs.text | split(' ')"
            body = [_step("part", "files.write", part)]
            nodes.append({"id": self.of["sub_parts"], "for_each": over, "do": body})
        inputs = {key: {"type": "str"} for key in ("name", "text")}
        return json.dumps({"inputs": inputs, "steps": nodes, "returns": "steps.say.text"})

    @property
    def _model(self) -> dict[str, str]:
        return {} if self._is_plain else {"model": "small"}

    def _block(self, id_: str, body: list[Any], condition: str | None) -> dict[str, Any]:
        block: dict[str, Any] = {"id": id_, "for_each": "doc in steps.docs.files", "do": body}
        block["returns"] = {"file": "doc.relpath"} if self.of["table"] else "doc.relpath"
        for name in ("where", "key"):
            if self.of[name]:
                block[name] = self.of[name]
        if condition:
            block["if"] = condition
        return block

    def _parts(self) -> dict[str, Any]:
        part = {"path": self.of["part_path"], "text": "{{ word }}"}
        body: list[Any] = [_step("part", "files.write", part)]
        if self.of["deep"]:
            letter = {
                "path": "parts/{{ doc.relpath }}/{{ word }}-{{ n }}",
                "text": "letter {{ n }}",
            }
            inner = [_step("letter", "files.write", letter)]
            deep = {"id": "deep", "for_each": "n in range(word | length)", "do": inner}
            body.append(deep)
        words = "word in steps.text.text | split(' ') | unique"
        parts: dict[str, Any] = {"id": self.of["parts"], "for_each": words, "do": body}
        if self.of["parts_if"]:
            parts["if"] = self.of["parts_if"]
        return parts

    def _of_rows(self) -> list[Any]:
        """Return a block over rows, and two of which one writes what the other did before."""
        of, nodes = self.of, [_step("table_read", "files.rows", {"path": "t.csv"})]
        if of["rows"]:
            page = {"path": of["row_path"], "text": "{{ steps.cost.text }}"}
            asked = _step("cost", "chat", {"prompt": "Row {{ row.price }}"} | self._model)
            block = {"id": of["rows"], "for_each": "row in steps.table_read.rows"}
            key = {"key": of["row_key"]} if of["row_key"] else {}
            body = [asked, _step("cost_page", "files.write", page)]
            if of["digits"]:
                of_digit = {"path": "rows/{{ row.id }}/{{ loop.index }}", "text": "{{ digit }}"}
                within = {"id": "digits", "for_each": "digit in (row.price ~ '') | list"}
                body.append({**within, "do": [_step("of_digit", "files.write", of_digit)]})
            nodes.append({**block, **key, "do": body})
        for name, sign in (("cheap", "<="), ("dear", ">")) if of["limit"] else ():
            page = {"path": "both/{{ row.id }}", "text": f"{name} {{{{ row.price }}}}"}
            block = {"id": name, "for_each": "row in steps.table_read.rows"}
            block["where"] = f"(row.price | int) {sign} {of['limit']}"
            condition = {"if": of["both_if"]} if of["both_if"] and name == "dear" else {}
            nodes.append({**block, **condition, "do": [_step(f"{name}_page", "files.write", page)]})
        return nodes

    def _of_results(self) -> list[Any]:
        """Return a block over results of the first, and one over its own."""
        of, nodes = self.of, list[Any]()
        name, listed = "got.file" if of["table"] else "got", of["block"]
        for id_, path in ((of["again"], of["again_path"]), (of["third"], "third/{{ NAME }}")):
            if id_ and of["again"]:
                page = {"path": path.replace("NAME", name), "text": f"{{{{ {name} }}}}"}
                block = {"id": id_, "for_each": f"got in steps.{listed}.results", "returns": "got"}
                key = {"key": name} if of["again_key"] and id_ != "third" else {}
                nodes.append({**block, **key, "do": [_step(f"{id_}_page", "files.write", page)]})
                listed = id_
        return nodes

    def _second(self) -> dict[str, Any]:
        write = {"path": self.of["second_path"], "text": "{{ doc.relpath }}"}
        block = {"id": "second", "for_each": "doc in steps.docs.files", "if": self.of["second_if"]}
        return {**block, "do": [_step("out", "files.write", write)]}


def _step(id_: str, uses: str, given: Any, condition: str | None = None) -> dict[str, Any]:
    step = {"id": id_, "uses": uses, "with": given}
    return step if condition is None else {**step, "if": condition}


class History:
    """One folder and what is done to it."""

    is_nested = False
    """Whether items within others wait, which runs report."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        is_plain: bool = False,
        may_review: bool = False,
        moves: int | None = None,
    ) -> None:
        """`moves`: a seed with which the pipeline's file is renamed and copied; None: it is not."""
        self.chance = random.Random(seed)
        self.folder = folder
        self.moves = None if moves is None else random.Random(moves)
        self.is_plain = is_plain
        self.shape = Shape(self.chance, is_plain=is_plain, may_review=may_review)
        self.events: list[str] = []
        self.broken: list[str] = []
        """What runs did otherwise than as planned."""
        for name in self.chance.sample(NAMES, 3):
            self.write(name)
        self.write_rows()
        self.save()

    def write_rows(self) -> None:
        if not self.is_plain:
            ids = self.chance.sample((1, 2), self.chance.randint(1, 2))
            rows = [f"{n},{self.chance.choice(PRICES)}" for n in ids]
            (self.folder / "t.csv").write_text("\n".join(["id,price", *rows, ""]), "utf-8")
            self.events.append(f"rows {' '.join(rows)}")

    def write(self, name: str) -> None:
        path = self.free_path(name)
        path.write_text(self.chance.choice(TEXTS), "utf-8")
        self.events.append(f"write {name}: {path.read_text('utf-8')}")

    def free_path(self, name: str) -> Path:
        """Return the path of a document, without the file or folder that has its place."""
        path = self.folder / "inbox" / name
        if path.is_dir():
            shutil.rmtree(path)
        if path.parent.is_file():
            path.parent.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save(self) -> None:
        (self.folder / file_of(self.folder)).write_text(self.shape.yaml(), "utf-8")
        (self.folder / "sub.yaml").write_text(self.shape.sub_yaml(), "utf-8")

    def move_pipeline(self) -> None:
        """Rename the pipeline, copy it, or have another one, which may have its name then."""
        if self.moves is None:
            return
        file, other = self.folder / file_of(self.folder), self.folder / file_of(self.folder, OTHERS)
        kind = self.moves.choice(("", "rename", "rename", "copy", "other", "exchange", "delete"))
        self.events.append(f"move: {kind}")
        if kind == "rename":
            free = [name for name in FILES if not (self.folder / name).exists()]
            (self.folder / MAIN).write_text(self.moves.choice(free), "utf-8")
            file.rename(self.folder / file_of(self.folder))
        elif kind == "copy":
            shutil.copy(file, self.folder / "copy.yaml")
        elif kind == "other" and not other.exists():
            free = [name for name in FILES if not (self.folder / name).exists()]
            (self.folder / OTHERS).write_text(self.moves.choice(free), "utf-8")
            self.run_other()
        elif kind == "exchange" and other.exists():
            for name, now in ((MAIN, other), (OTHERS, file)):
                (self.folder / name).write_text(now.name, "utf-8")
            file.rename(self.folder / "aside")
            other.rename(file)
            (self.folder / "aside").rename(other)
            if self.moves.random() < 0.5:
                self.run_other()
        elif kind == "delete" and other.exists():
            other.unlink()
        self.refused(file)

    def refused(self, was: Path) -> None:
        """Do what a plan says that does not know which pipeline a file is."""

        def is_refused() -> bool:
            try:
                world_of(self.folder).plan()
            except PipelineError as error:
                return "it may be that one" in str(error)
            return False

        for _ in range(2):
            if in_a_process(self.folder, is_refused):
                self.events.append("it is not known which pipeline it is")
                if (self.folder / "copy.yaml").exists():
                    (self.folder / "copy.yaml").unlink()
                else:
                    (self.folder / file_of(self.folder)).rename(was)
                    (self.folder / MAIN).write_text(was.name, "utf-8")

    def run_other(self) -> None:
        assert self.moves is not None
        other = World(self.folder, OTHER, name=file_of(self.folder, OTHERS))
        prune = self.moves.random() < 0.5
        in_a_process(self.folder, lambda: other.run(prune=prune).status)

    def documents(self) -> list[Path]:
        return sorted(path for path in (self.folder / "inbox").rglob("*") if path.is_file())

    def go(self) -> list[str]:
        """Live through it; return what is wrong at the end."""
        for _ in range(self.chance.randint(2, 5)):
            for _ in range(self.chance.randint(1, 3)):
                self.change()
            if not self.is_plain and self.chance.random() < 0.6:
                self.write_rows()
            self.run_somehow()
        return self.faults()

    def change(self) -> None:
        kinds: tuple[str, ...] = ("write", "write", "rename", "delete", "shape", "shape")
        kinds += ("lose", "rows", "rows", "exchange") * (not self.is_plain)
        kinds += ("decide", "decide", "undo", "correct") * bool(self.shape.review)
        kind = self.chance.choice(kinds)
        documents = self.documents()
        if kind == "write" or not documents:
            self.write(self.chance.choice(NAMES))
        elif kind == "rename":
            old, new = self.chance.choice(documents), self.chance.choice(NAMES)
            text = old.read_text("utf-8")
            old.unlink()
            self.free_path(new).write_text(text, "utf-8")
            self.events.append(f"rename {old.name} {new}")
        elif kind == "exchange":  # of a file and a folder
            self.write("sub/d.txt" if (self.folder / "inbox/sub").is_file() else "sub")
        elif kind == "delete":
            document = self.chance.choice(documents)
            document.unlink()
            self.events.append(f"delete {document.name}")
        elif kind == "lose":  # an output, which the next run makes again
            lost = self.chance.choice([*files_of(self.folder)] or ["nothing"])
            (self.folder / lost).unlink(missing_ok=True)
            self.events.append(f"lose {lost}")
        elif kind == "rows":
            self.write_rows()
        elif kind == "decide":
            self.events.append(f"decide: {decide(self.folder, self.chance)}")
        elif kind in ("undo", "correct"):
            names = undo(self.folder, self.chance, corrects=kind == "correct")
            self.events.append(f"{kind}: {names}")
        else:
            self.events.append(self.shape.change())
            self.save()

    def run_somehow(self) -> None:
        self.move_pipeline()
        kill = self.chance.randint(1, 40) if self.chance.random() < 0.4 else 0
        prune = self.chance.random() < 0.2
        may_sample = not (self.is_plain or prune)
        sample = ItemSample(2) if may_sample and self.chance.random() < 0.15 else None
        modes = ("ask", "ask", "ask", "skip", "fail")
        review = self.chance.choice(modes) if self.shape.review else "ask"
        flags = (
            f" killed at {kill}" * bool(kill),
            " --prune" * prune,
            " --sample 2" * bool(sample),
            f" --review {review}" * bool(self.shape.review),
        )
        self.events.append(f"run{''.join(flags)}")
        is_planned = not (kill or self.is_plain)

        def act() -> dict[str, Any]:
            given: dict[str, Any] = {"prune": prune, "sample": sample, "review": review}
            return run_here(self.folder, is_planned=is_planned, **given)

        is_apart = kill or self.shape.may_store
        facts = in_a_process(self.folder, act, kill) if is_apart else act()
        self.broken += [
            f"run {len(self.events)}: {what}" for what in (facts or {}).get("broken", ())
        ]

    def last_run(self, folder: Path, **options: Any) -> Any:
        def act() -> dict[str, Any]:
            return run_here(folder, **{"prune": False, **options})

        return in_a_process(folder, act) if self.shape.may_store else act()

    def decided(self, folder: Path) -> tuple[Any, list[str]]:
        """Run until nothing waits; return the last run, and what was asked amiss."""
        if folder == self.folder:  # the first gives up what several kills met; the next tries it
            self.last_run(folder, retries=True)
        facts, found = self.last_run(folder, retries=folder == self.folder), list[str]()
        while asked := decide(folder):
            if sorted(asked) != facts["waiting"] and not (self.is_nested and facts["waiting"]):
                found.append(f"asked about {sorted(asked)}, {facts['waiting']} wait")
            facts = self.last_run(folder)
        return facts, found

    def faults(self) -> list[str]:
        for name in ("copy.yaml", file_of(self.folder, OTHERS)):
            (self.folder / name).unlink(missing_ok=True)
        _, found = self.decided(self.folder)
        found += self.broken
        kept = self.last_run(self.folder, plans=True)
        here = files_of(self.folder)
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            shutil.copytree(self.folder / "inbox", scratch / "inbox", copy_function=shutil.copy2)
            for file in chain(*map(self.folder.glob, COPIED)):
                shutil.copy(file, scratch)
            if not self.is_plain:
                shutil.copy(self.folder / "t.csv", scratch)
            fresh, _ = self.decided(scratch)
            there = files_of(scratch)
            found += [f"run: {kept['message']}"] if kept["status"] == "failed" else []
            if (kept["status"] == "failed") != (fresh["status"] == "failed"):
                found.append(f"status {kept['status']}, from scratch {fresh['status']}")
            outdated = {name for name in kept["outdated"] if not name.endswith("of store")}
            planned = set(kept["plan"])
            if kept["is_left"]:  # all its items failed, which no plan knows: it stays, a note says
                left = {*OF_RESULTS, *(f"copies/{name}" for name in OF_RESULTS)}
                left |= {n for n in {*here, *there} if n.startswith(LEFT_FOLDERS)}
                here = {name: here[name] for name in here.keys() - left}
                there = {name: there[name] for name in there.keys() - left}
                outdated -= left
                planned -= left - set(kept["outdated"])
            if not kept["blocked"] and outdated != here.keys() - there.keys():
                extra = sorted(here.keys() - there.keys())
                found.append(f"outdated: told {sorted(outdated)}, are {extra}")
            if (
                kept["work"]
                and not (kept["is_left"] or kept["blocked"])
                and kept["status"] != "failed"
            ):
                found.append(f"work is left: {kept['work']}")
            if not kept["blocked"] and planned != set(kept["outdated"]):
                found.append(f"plan tells {sorted(planned)}, the run {kept['outdated']}")
            pruned = self.last_run(self.folder, prune=True)
            for _ in range(2 if pruned["blocked"] else 0):  # what moved on was in its way
                pruned = self.last_run(self.folder, prune=True)
            while decide(self.folder):  # which waited for the path first
                pruned = self.last_run(self.folder, prune=True)
            if pruned["blocked"]:
                found.append("something waits for a path after --prune")
            now = files_of(self.folder)
            if kept["is_left"]:
                now = {name: now[name] for name in now.keys() - left}
            if now != there:
                found.append(f"files: {sorted(now.items() ^ there.items())}")
            if pruned["rows"] != fresh["rows"]:
                found.append(f"rows: {pruned['rows']}, from scratch {fresh['rows']}")
            if pruned["outdated"]:
                found.append(f"kept after --prune: {pruned['outdated']}")
        return found


class FilingHistory(History):
    """A folder whose documents are filed: its table has all that ever were, as if replayed."""

    def __init__(
        self, seed: int, folder: Path, *, may_review: bool = False, moves: int | None = None
    ) -> None:
        self.n_prompts = 0
        self.review = ("true", "'keep' in text", "'two' in text")[seed // len(SHAPES) % 3]
        self.review = self.review if may_review else ""
        self.arrived: dict[str, str] = {}
        """Name → text of what was put into the folder and was not seen to leave it."""
        self.filed: list[tuple[str, str]] = []
        self.may_be_unfinished = False
        self.form = [*SHAPES][seed % len(SHAPES)]
        self.is_nested = "in_block" in self.form
        super().__init__(seed, folder, is_plain=True, moves=moves)
        self.shape.may_store = False

    def save(self) -> None:
        prompt = f"Kind {self.n_prompts} of"
        for name, text in pipeline_files(self.form, prompt, self.review).items():
            name = file_of(self.folder) if name == "pipeline.yaml" else name
            (self.folder / name).write_text(text, "utf-8")

    def note_filed(self) -> None:
        """Note what a run has taken out of the folder."""
        for name, text in [*self.arrived.items()]:
            if not (self.folder / "inbox" / name).exists():
                del self.arrived[name]
                if (name, text) not in self.filed:
                    self.filed.append((name, text))

    def write(self, name: str) -> None:
        self.note_filed()
        super().write(name)
        self.arrived[name] = (self.folder / "inbox" / name).read_text("utf-8")

    def change(self) -> None:
        self.note_filed()
        kinds: tuple[str, ...] = ("write", "write", "write", "rename", "delete", "prompt")
        kinds += ("year", "edit", "remove")
        kinds += ("decide", "decide", "undo", "correct", "correct") * bool(self.review)
        kind = self.chance.choice(kinds)
        filed = sorted(path for path in (self.folder / "filed").rglob("*") if path.is_file())
        if kind in ("rename", "delete") and self.arrived:
            old, new = self.chance.choice(sorted(self.arrived)), self.chance.choice(NAMES)
            path, target = self.folder / "inbox" / old, self.folder / "inbox" / new
            text = self.arrived.pop(old)
            if kind == "delete":
                path.unlink()
            else:
                target.parent.mkdir(exist_ok=True)
                path.rename(target)
                self.arrived[new] = text
        elif kind == "prompt":
            self.n_prompts = self.chance.randint(0, 2)
            self.save()
        elif kind == "year" and filed and not self.may_be_unfinished:
            (self.folder / "filed").rename(self.folder / f"year{len(self.events)}")
        elif kind == "edit" and filed and not self.may_be_unfinished:
            self.chance.choice(filed).write_text("edited", "utf-8")
        elif kind == "remove" and filed and not self.may_be_unfinished:
            self.chance.choice(filed).unlink()
        elif kind == "decide":
            kind += f": {decide(self.folder, self.chance)}"
        elif kind in ("undo", "correct"):
            kind += f": {undo(self.folder, self.chance, corrects=kind == 'correct')}"
        else:
            self.write(self.chance.choice(NAMES))
            return
        self.events.append(kind)

    def run_somehow(self) -> None:
        self.move_pipeline()
        kill = self.chance.randint(1, 40) if self.chance.random() < 0.4 else 0
        prune = self.chance.random() < 0.1 and not any(
            event in ("year", "edit", "remove") for event in self.events
        )
        is_sample = not prune and self.chance.random() < 0.1
        is_forced = not is_sample and self.chance.random() < 0.1
        flags = (
            f" killed at {kill}" * bool(kill),
            " --prune" * prune,
            " --sample 2" * is_sample,
            " --force" * is_forced,
        )
        self.events.append(f"run{''.join(flags)}")
        name = "sub.each" if "sub" in self.form else "each"
        sample, force = ItemSample(2) if is_sample else None, [name] * is_forced
        act = partial(run_here, self.folder, prune=prune, sample=sample, force=force)
        if not kill or in_a_process(self.folder, act, kill) is not None:
            if not kill:
                act()
            self.may_be_unfinished &= is_sample  # a sample leaves what it does not ask for
        else:
            self.may_be_unfinished = True

    def faults(self) -> list[str]:
        _, found = self.decided(self.folder)
        if self.review and undo(self.folder, self.chance, corrects=True):
            found += self.decided(self.folder)[1]
        table = self.folder / "out/t.csv"
        before = table.stat().st_mtime_ns if table.exists() else 0
        self.note_filed()
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            for path in chain(*map(self.folder.glob, COPIED)):
                shutil.copy(path, scratch)
            for arrival, text in self.filed:
                path = scratch / "inbox" / arrival
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
                self.decided(scratch)
            ours, replayed = table_of(self.folder), table_of(scratch)
            places = filed_in(self.folder), filed_in(scratch)
        is_decided = self.review == "true" and self.form in DECIDED_ALONE
        if is_decided and ours != replayed:
            found.append(f"decisions: {ours}, of all arrivals {replayed}")
        if [row[:2] for row in ours] != [row[:2] for row in replayed]:
            found.append(f"table: {ours}, of all arrivals {replayed}")
        is_whole = not any(event in ("year", "edit", "remove") for event in self.events)
        if is_whole and self.form == "by_kind" and places[0] != places[1]:
            found.append(f"filed: {places[0]}, of all arrivals {places[1]}")
        if is_whole and ours != replayed:
            found.append(f"answers: {ours}, of all arrivals {replayed}")
        again = self.last_run(self.folder)
        if is_decided and self.form not in ("sub", *FILES_RESULTS):
            found += self.refused_amiss()
        statuses = ("completed", *["quarantined"] * bool(self.review))  # as what is rejected
        after = table.stat().st_mtime_ns if table.exists() else 0
        if again["status"] not in statuses or again["calls"] or (before and before != after):
            n_calls = again["calls"]
            found.append(
                f"a run with nothing new: {again['status']}, {n_calls} calls, "
                f"wrote {before != after}"
            )
        return found

    def refused_amiss(self) -> list[str]:
        """Return what is wrong with the number of rejected documents that the pipeline tells."""
        documents = {*self.filed, *self.arrived.items()}
        corrected, rejected = corrections(self.folder), list[str]()
        for name, text in sorted(documents):
            document = hashlib.sha256(text.encode()).hexdigest()
            if verdict_on(document, corrected.get(document, 0))[0] == "reject":
                rejected.append(f"{name}: {text}")
        path = self.folder / "out/refused.txt"
        told = path.read_text("utf-8") if path.exists() else ""
        return [] if told == str(len(rejected)) else [f"refused: {told}, are {rejected}"]


def file_of(folder: Path, note: str = MAIN) -> str:
    """Return the name of the pipeline's file, or, of `OTHERS`, of the other one's."""
    default = "pipeline.yaml" if note == MAIN else "none.yaml"
    return (folder / note).read_text("utf-8") if (folder / note).exists() else default


def world_of(folder: Path) -> ReviewedWorld:
    name = file_of(folder)
    return ReviewedWorld(folder, (folder / name).read_text("utf-8"), name=name)


def table_of(folder: Path) -> list[list[str]]:
    path = folder / "out/t.csv"
    return [*csv.reader(path.read_text("utf-8").splitlines())][1:] if path.exists() else []


def filed_in(folder: Path) -> list[tuple[str, str]]:
    """Return the folder and the text of each document that is filed, and would not be rejected."""
    corrected, found = corrections(folder), list[tuple[str, str]]()
    for path in (path for path in (folder / "filed").rglob("*") if path.is_file()):
        document = hashlib.sha256(path.read_bytes()).hexdigest()
        if verdict_on(document, corrected.get(document, 0))[0] != "reject":
            found.append((path.parent.relative_to(folder).as_posix(), path.read_text("utf-8")))
    return sorted(found)


def answer(request: ChatRequest) -> str:
    """Answer with the model's name, or with a label that does not change when others go."""
    if request.constraint is None:
        return f"{request.model.ref} {echo(request)}"
    text = request.messages[-1].content.partition("\n")[0]
    ranks = {
        label: hashlib.sha256(f"{label} {text}".encode()).digest() for label in enum_of(request)
    }
    return json.dumps({"tag": max(ranks, key=ranks.__getitem__)})


def corrections(folder: Path) -> dict[str, int]:
    """Return how often a person has corrected a decision, by the document's digest."""
    path = folder / CORRECTIONS
    found: dict[str, int] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def decide(folder: Path, chance: random.Random | None = None) -> list[str]:
    """Decide on all that waits, or on some, by the document alone; return their names."""
    names, corrected = [], corrections(folder)
    with world_of(folder).reviews() as reviews:
        for review in reviews.waiting(is_whole=True):
            if chance is None or chance.random() < 0.8:
                document = review.subject.document_sha256
                verb, value = verdict_on(document, corrected.get(document, 0))
                reviews.decide(review.id, review.question, verb, value, reason="no", by="ann")
                names.append(review.key)
    return names


def verdict_on(document: str, n_corrected: int) -> tuple[Any, str | None]:
    """Return how a person decides on a document, by its digest."""
    if (int(document[8:16], 16) + n_corrected) % 4 == 0:
        return "reject", None
    return "edit", f"{('keep', 'drop', 'two')[int(document[:8], 16) % 3]} {n_corrected}"


def undo(folder: Path, chance: random.Random, *, corrects: bool = False) -> list[str]:
    """Undo some decisions, also on documents that are gone or filed; return their names.

    `corrects`: they are decided otherwise the next time.
    """
    names, corrected = [], corrections(folder)
    with world_of(folder).reviews() as reviews:
        decided = reviews.decided()
        chosen = {r.subject.document_sha256 for r in decided if chance.random() < 0.5}
        for review in decided:
            if review.subject.document_sha256 in chosen:
                reviews.undo(review.id, "ann")
                names.append(review.key)
    if corrects:
        corrected |= {document: corrected.get(document, 0) + 1 for document in chosen}
        text = json.dumps(corrected, sort_keys=True)
        (folder / CORRECTIONS).write_text(text, "utf-8")
    return names


def run_here(
    folder: Path,
    *,
    prune: bool,
    plans: bool = False,
    retries: bool = False,
    sample: ItemSample | None = None,
    review: str = "ask",
    force: Sequence[str] = (),
    is_planned: bool = False,
) -> dict[str, Any]:
    """Run it; `retries`: also what was given up, since several kills met it."""
    world = world_of(folder)
    promised: PlanReport | str | None = None
    if is_planned:
        options: dict[str, Any] = {
            "prune": prune,
            "is_confirmed": True,
            "sample": sample,
            "review": review,
        }
        try:
            promised = world.plan(pool=FakePool(answer=answer), **options)
        except PipelineError as error:
            promised = str(error)
    before = files_of(folder).keys()
    report = world.run(
        pool=FakePool(answer=answer), prune=prune, is_confirmed=True, retry_failed=retries,
        sample=sample, review=review, force=force,
    )  # fmt: skip
    facts: dict[str, Any] = {"status": report.status, "message": report.message}
    facts["calls"] = report.calls
    facts["waiting"] = sorted(item.key for item in report.items if item.state == "waiting")
    facts["outdated"] = [*report.outdated]
    facts["blocked"] = report.counts.get("blocked", 0)
    facts["is_left"] = any("is left as it is" in note for note in report.notes)
    facts["broken"] = (
        []
        if promised is None
        else broken_promises(promised, report, before - files_of(folder).keys(), folder)
    )
    plan = world.plan() if plans else None
    facts["plan"] = [] if plan is None else [*plan.outdated]
    facts["work"] = (
        [f"{item.step} {item.key}" for item in plan.items if item.state in WORK]
        if plan is not None
        else []
    )
    return {**facts, "rows": rows_of(folder)}


def broken_promises(
    plan: PlanReport | str, report: Report, gone: Set[str], folder: Path
) -> list[str]:
    """Return what a run did otherwise than as planned.

    What a step gives is not known before a run; nor is what an item makes, and whether it fails.
    `gone`: the files that the run removed.
    """
    if isinstance(plan, str) or report.status == "failed":
        is_same = isinstance(plan, str) == (report.status == "failed")
        return [] if is_same else [f"planned {plan}, {report.status} {report.message}"]
    planned = {(i.step, i.key): i.state for i in plan.items if not i.is_step}
    done = {(i.step, i.key): i for i in report.items if (i.step, i.key) in planned}
    found = [
        f"{place}: planned {planned[place]}, is {item.state}"
        for place, item in done.items()
        if (planned[place] in WORK) != (item.state in WORK)
        if item.state in WORK or item.state in ("fresh", "held")
    ]
    n_most = plan.calls if plan.calls_are != "about" and not plan.notes else None
    if n_most is not None and not (plan.least_calls or 0) <= report.calls <= n_most:
        found.append(f"planned {plan.least_calls} to {n_most} calls, {report.calls} made")
    kept = [name for name in plan.outdated if (folder / name).is_file()]
    if wrong := sorted({*kept} - {*report.outdated}):
        found.append(f"planned as outdated, and kept: {wrong}")
    if wrong := sorted({*plan.outdated} & gone):
        found.append(f"planned as kept, and removed: {wrong}")
    # What was made of a renamed document stays while that fails or waits under its new name.
    stays = [name for name in plan.removed if (folder / name).is_file()]
    if stays and report.counts.keys().isdisjoint(("quarantined", "waiting", "skipped")):
        found.append(f"planned as removed, and kept: {sorted(stays)}")
    return found


def rows_of(folder: Path) -> list[str]:
    """Return the texts in the store."""
    if not (folder / "store").exists():
        return []
    import lancedb

    database = lancedb.connect(folder / "store")
    return sorted(
        row["text"]
        for name in database.list_tables().tables
        for row in database.open_table(name).to_arrow().to_pylist()
    )


def files_of(folder: Path) -> dict[str, str]:
    found = [path for name in OUTPUTS for path in (folder / name, *(folder / name).rglob("*"))]
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in found
        if path.is_file() and not path.name.endswith(TEMPORARY_SUFFIX)  # swept when they are older
    }


def in_a_process(folder: Path, act: Callable[[], Any], kill: int = 0) -> Any:
    """Act in a child process; with `kill` it ends at that write. Return what `act` returned."""
    answer = folder / "answer.json"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if kill and code == KILLED:
            return None
        if code:
            raise RuntimeError((folder / "trace.txt").read_text("utf-8"))
        return json.loads(answer.read_text("utf-8"))
    try:
        if kill:
            kill_at(kill)
        answer.write_text(json.dumps(act()), "utf-8")
        code = 0
    except BaseException:  # the parent raises it
        (folder / "trace.txt").write_text(traceback.format_exc(), "utf-8")
        code = 1
    os._exit(code)


def kill_at(n: int) -> None:
    """End this process at the n-th of the writes that matter, before or after it."""
    left = [n]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(KILLED)

    def both(plain: Any) -> Any:
        def done(*given: Any, **named: Any) -> Any:
            die()
            answer = plain(*given, **named)
            die()
            return answer

        return done

    def both_async(plain: Any) -> Any:
        async def done(*given: Any, **named: Any) -> Any:
            die()
            answer = await plain(*given, **named)
            die()
            return answer

        return done

    TemporaryFile.replace = both(TemporaryFile.replace)  # type: ignore[method-assign]
    Path.unlink = both(Path.unlink)  # type: ignore[method-assign]
    Ledger.durable = both_async(Ledger.durable)  # type: ignore[method-assign]
    OpenStores.keep_only = both_async(OpenStores.keep_only)  # type: ignore[method-assign]
    OpenStores.remove_items = both_async(OpenStores.remove_items)  # type: ignore[method-assign]


class KeptReaders(ReaderPool):
    """One for all runs of this process: a start for each `sql` is most of a history's time."""

    def close(self) -> None:
        pass


def import_all() -> None:
    """Import what runs import, once for all child processes, and keep readers here."""
    here, kept = os.getpid(), KeptReaders()
    session.ReaderPool = lambda given: kept if os.getpid() == here else ReaderPool(given)  # type: ignore
    with tempfile.TemporaryDirectory() as name:
        History(1, Path(name))
        run_here(Path(name), prune=False)
    assert threading.active_count() == 1  # a child would have no other thread, but its locks


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random histories against runs from scratch.")
    parser.add_argument("--histories", type=int, default=1000, help="of each seed and those on it")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--moving", action="store_true", help="the pipeline's file is renamed")
    parser.add_argument("--reviews", action="store_true", help="answers wait for a person")
    parser.add_argument("--filing", action="store_true", help="documents are moved away when done")
    parser.add_argument("--shape", choices=SHAPES, help="with --filing: all of one shape")
    given = parser.parse_args(words)
    import_all()
    n_bad, seeds = 0, [first + n for first in given.seed for n in range(given.histories)]
    if given.shape:
        seeds = [seed * len(SHAPES) + [*SHAPES].index(given.shape) for seed in seeds]
    for seed in seeds:
        moves = seed if given.moving else None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if given.filing:
                history: History = FilingHistory(
                    seed, folder, may_review=given.reviews, moves=moves
                )
            else:
                history = History(
                    seed, folder, is_plain=given.plain, may_review=given.reviews, moves=moves
                )
            faults = history.go()
        if faults:
            n_bad += 1
            print(f"seed {seed}:", *history.events, sep="\n  ")
            print(*faults, sep="\n    ", flush=True)
    print(f"{len(seeds)} histories, {n_bad} of them wrong")
    return min(n_bad, 1)


if __name__ == "__main__":
    sys.exit(main())
