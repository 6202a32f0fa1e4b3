"""Two hundred situations of `plan` and `why`: what is told of each, against what was told before.

    python -m tests.runner.core.situations            compare; the first differences are printed
    python -m tests.runner.core.situations --write    record them again

A situation is one change of a folder that has run, or several together, drawn once from a seed. The
golden file has of each what a plan says of items that are not fresh, of outputs and of calls, and
what `why` tells of pages and documents.
"""

import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run_until_end
from tests.fakes.pool import echo
from tests.runner.core.played_history import neutral, why_record
from tests.runner.core.test_prompt_examples import WordPool
from tests.runner.world import ALL, ReviewedWorld, run_arguments, settings

GOLDEN = Path(__file__).with_suffix(".txt")
N_SITUATIONS = 200
PIPELINE = """\
name: letters
inputs: {tone: {type: str, default: plain}}
models: {small: {ref: small}, big: {ref: big, ctx: 4k}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - {id: tags, uses: files.rows, with: {path: tags.csv}}
  - id: each
    for_each: doc in steps.docs.files
    where: doc.name != 'left.txt'
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: note, uses: files.read, with: {path: note.md}}
      - {id: more, uses: files.scan, with: {root: extra}}
      - {id: clean, uses: "own.py:clean", with: {text: "{{ steps.text.text }}"}}
      - id: kind
        uses: chat
        with:
          model: small
          prompt: "Kind, {{ inputs.tone }}: {{ steps.clean.result }} {{ steps.note.text }}"
          params: {temperature: 0.5}
        reply: {schema: {kind: str}, check: ["words(output.kind) < 99"]}
      - id: tag
        uses: chat
        with: {model: small, prompt: "{{ steps.text.text }}"}
        reply: {schema: {tag: {choose: steps.tags.rows, by: name, describe: note}}}
      - id: topic
        uses: chat
        with:
          model: big
          system: Name the topic.
          prompt: "{{ steps.text.text }}"
          examples: {from: reviews, k: 1}
        reply: {schema: {topic: str}}
        review: {when: "doc.name[0] == 'a'"}
      - {id: words, uses: pipeline, with: {file: sub.yaml, inputs: {text: "{{ steps.text.text }}"}}}
      - id: page
        uses: files.write
        with:
          path: "out/{{ doc.relpath }}.md"
          template: {file: page.tpl}
          vars: {kind: "{{ steps.kind.output.kind }}", tag: "{{ steps.tag.output.tag }}"}
      - id: lines
        for_each: word in steps.text.text.split()
        do:
          - uses: files.write
            with: {path: "words/{{ doc.stem }}/{{ loop.index }}", text: "{{ word }}"}
    returns: {file: doc.relpath, kind: steps.kind.output.kind, topic: steps.topic.output.topic}
  - id: second
    for_each: row in steps.each.results
    key: row.file
    do:
      - {uses: files.write, with: {path: "again/{{ row.file }}", text: "{{ row.kind }}"}}
  - id: sum
    uses: reduce
    with: {model: big, over: "{{ steps.each.results }}", prompt: "All:", fanin: 2}
  - {id: table, uses: files.write, with: {path: T.csv, rows: "{{ steps.each.results }}"}}
  - {id: digest, uses: files.write, with: {path: DIGEST.md, text: "{{ steps.sum.text }}"}}
"""
FILES = {
    "sub.yaml": """\
inputs: {text: {type: str}}
steps:
  - {id: cut, uses: chat, with: {prompt: "Cut: {{ inputs.text }}"}}
returns: steps.cut.text
""",
    "tags.csv": "name,note\nferry,boats\nbridge,ways\n",
    "note.md": "Closed on Sundays.",
    "page.tpl": "# {{ kind }}\n{{ tag }}\n",
    "own.py": "import helper\n\n\ndef clean(text: str) -> str:\n    return helper.lower(text)\n",
    "helper.py": "def lower(text):\n    return text.lower()\n",
    "extra/x.txt": "x",
    "inbox/a1.txt": "cat cat dog ferry\n",
    "inbox/a2.txt": "oak oak elm bridge\n",
    "inbox/a3.txt": "sun ferry\n",
    "inbox/b1.txt": "cat dog bridge\n",
    "inbox/b2.txt": "oak elm ferry\n",
    "inbox/bad.txt": "this fails\n",
    "inbox/left.txt": "left out\n",
    "inbox/sub/a1.txt": "cat cat dog ferry\n",
}
NEW_STEP = "- {id: new, uses: prompt, with: {template: x}}\n      "
Change = Callable[["Case"], object]


def answer(request: ChatRequest) -> str:
    text = request.messages[-1].content
    if any("this fails" in message.content for message in request.messages):
        return "no JSON"  # also as it is asked to repair it
    if request.constraint is None:
        return f"{request.model.ref} {echo(request)}"
    schema = json.loads(request.constraint.source)["properties"]
    if "tag" in schema:
        labels = schema["tag"]["enum"]
        named = [label for label in labels if re.search(rf"\b{label}\b", text.partition("\n")[0])]
        return json.dumps({"tag": [*named, labels[-1]][0]})
    return json.dumps(dict.fromkeys(schema, f"{request.model.ref} {echo(request)}"))


class Case(ReviewedWorld):
    """A folder that has run, with decisions; changes are taken back byte by byte."""

    def __init__(
        self, folder: Path, files: Mapping[str, str] = FILES, text: str = PIPELINE
    ) -> None:
        super().__init__(folder, text, files)
        self.own = replace(settings(folder), allow=ALL)
        for name in (*files, "pipeline.yaml"):
            os.utime(folder / name, ns=(10**18, 10**18))
        self.go()
        for key, topic in (("a1.txt", "pets"), ("a2.txt", "trees")):
            self.decide(key, "edit", {"topic": topic})
        if "sub/a1.txt" in self.waiting():
            self.decide("sub/a1.txt", "reject", reason="no")
        self.go()
        self._bytes = {path: self._facts(path) for path in self._files()}

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _facts(self, path: Path) -> tuple[bytes, int]:
        return path.read_bytes(), path.stat().st_mtime_ns

    def take_back(self) -> None:
        """Restore all files, in their inodes where they are there: a ledger is known by that."""
        for path in self._files():
            if path not in self._bytes:
                path.unlink()
        for path, (content, time_ns) in self._bytes.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or self._facts(path) != (content, time_ns):
                path.write_bytes(content)
                os.utime(path, ns=(time_ns, time_ns))

    def go(self, **options: Any) -> Any:
        arguments = run_arguments(
            local=True, pool=WordPool(answer=answer), settings=self.own, **options
        )
        return run_until_end(self.file, None, *arguments)

    def change(self, name: str, old: str, new: str) -> None:
        name = self.name if name == "pipeline.yaml" else name
        text = (self.folder / name).read_text("utf-8")
        self.write(name, text.replace(old, new))  # another change may have taken it

    def told(self, **options: Any) -> dict[str, Any]:
        """Return what a plan and `why` say now."""
        given, _ = run_arguments(local=True, **options)
        pool = WordPool(answer=answer)
        try:
            found = plan(self.file, None, given, pool=pool, settings=self.own)
        except PipelineError as error:
            return {"refused": neutral(str(error), self.folder)}
        items = sorted(
            f"{item.step} {item.key}: {item.state}{f', {item.why}' if item.why else ''}"
            for item in found.items
            if item.state != "fresh"
        )
        calls = f"{found.calls_are} {found.calls} likely {found.likely_calls} least "
        facts: dict[str, Any] = {"items": items, "calls": f"{calls}{found.least_calls}"}
        for name in ("outdated", "removed"):
            facts[name] = sorted(f"{n}: {why}" for n, why in getattr(found, name).items())
        facts["notes"] = [*found.notes]
        names = ["out", "T.csv", "inbox/a1.txt"]
        why = why_record(self.folder, [name for name in names if (self.folder / name).exists()])
        facts["why"] = sorted(
            f"{origin['path']} {origin['state']} {origin['condition']}: {change['what']}"
            for each in why.values()
            for origin in each["origins"]
            for change in origin["changes"] or [{"what": "-"}]
        )
        facts["read by"] = sorted(text for each in why.values() for text in each["read_by"])
        return dict(neutral(facts, self.folder))


def yaml(old: str, new: str) -> Change:
    assert old in PIPELINE, old
    return lambda case: case.change("pipeline.yaml", old, new)


def taken_back(old: str, new: str) -> Change:
    return lambda case: case.change("pipeline.yaml", old, new)


def both(*changes: Change) -> Change:
    def change(case: Case) -> None:
        for each in changes:
            each(case)

    return change


def file(name: str, text: str) -> Change:
    return lambda case: case.write(name, text)


def gone(name: str) -> Change:
    return lambda case: (case.folder / name).unlink(missing_ok=True)


def moved(old: str, new: str) -> Change:
    def change(case: Case) -> None:
        (case.folder / new).parent.mkdir(exist_ok=True, parents=True)
        if (case.folder / old).exists():
            (case.folder / old).rename(case.folder / new)

    return change


def decided(key: str, verb: Any, value: Any = None) -> Change:
    def change(case: Case) -> None:
        if key in case.waiting():
            case.decide(key, verb, value, reason="no")

    return change


def undone(key: str) -> Change:
    def change(case: Case) -> None:
        with case.reviews() as reviews:
            for review in [review for review in reviews.decided() if review.key == key]:
                reviews.undo(review.id, "ann")

    return change


def ran(**options: Any) -> Change:
    return lambda case: case.go(**options)


def run_other(case: Case) -> None:
    """Take pages over by another pipeline."""
    other = 'steps: [{uses: files.write, with: {path: out/b1.txt.md, text: "other"}}]\n'
    text = case.write("other.yaml", other)
    arguments = run_arguments(local=True, pool=WordPool(), settings=case.own, takes_over=True)
    run_until_end(text, None, *arguments)


def rename_pipeline(case: Case) -> None:
    case.file.rename(case.folder / "renamed.yaml")
    case.name = "renamed.yaml"


CHANGES: Mapping[str, Change] = {
    "prompt edited": yaml("Kind, ", "Which kind, "),
    "prompt of a sub-pipeline edited": lambda case: case.change("sub.yaml", "Cut:", "Shorten:"),
    "system prompt edited": yaml("Name the topic", "Say the topic"),
    "model changed": yaml('small\n          prompt: "Kind', 'big\n          prompt: "Kind'),
    "model's file changed": yaml("small: {ref: small}", "small: {ref: tiny}"),
    "context changed": yaml("ctx: 4k", "ctx: 2k"),
    "sampling changed": yaml("temperature: 0.5", "temperature: 0.7"),
    "schema changed": yaml("{kind: str}", "{kind: str, sure: str}"),
    "check changed": yaml("< 99", "< 88"),
    "input changed": yaml("default: plain", "default: merry"),
    "step new": yaml("- {id: note,", NEW_STEP + "- {id: note,"),
    "step removed": yaml('      - {id: more, uses: files.scan, with: {root: extra}}\n', ""),
    "condition new": yaml("- id: page\n", "- id: page\n        if: \"'cat' in steps.text.text\"\n"),
    "`where` changed": yaml("doc.name != 'left.txt'", "doc.name != 'b1.txt'"),
    "`key` changed": yaml("    key: row.file\n", "    key: row.kind\n"),
    "`key` new": yaml("    where: doc", "    key: doc.relpath | upper\n    where: doc"),
    "`returns` changed": yaml("{file: doc.relpath, kind", "{file: doc.name, kind"),
    "path of a page changed": yaml("out/{{ doc.relpath }}.md", "pages/{{ doc.relpath }}.md"),
    "template changed": file("page.tpl", "## {{ kind }}\n"),
    "block renamed": both(yaml("id: each", "id: every"), yaml("steps.each", "steps.every")),
    "review everywhere": yaml("doc.name[0] == 'a'", "true"),
    "review nowhere": yaml("        review: {when: \"doc.name[0] == 'a'\"}\n", ""),
    "examples more": yaml("k: 1", "k: 2"),
    "fan-in changed": yaml("fanin: 2", "fanin: 3"),
    "code changed": lambda case: case.change("own.py", "lower(text)", "lower(text) + '.'"),
    "imported code changed": lambda case: case.change("helper.py", ".lower()", ".lower().strip()"),
    "a comment in code": lambda case: case.change("own.py", "def clean", "# why\ndef clean"),
    "a file that is read edited": file("note.md", "Open on Sundays."),
    "a file that is read gone": gone("note.md"),
    "a folder that is listed has more": file("extra/y.txt", "y"),
    "label new": file("tags.csv", "name,note\nferry,boats\nbridge,ways\ntram,rails\n"),
    "label gone": file("tags.csv", "name,note\nferry,boats\n"),
    "label described otherwise": file("tags.csv", "name,note\nferry,ships\nbridge,ways\n"),
    "document edited": file("inbox/b1.txt", "cat elm bridge\n"),
    "document of a decision edited": file("inbox/a1.txt", "cat sun ferry\n"),
    "document touched": lambda case: os.utime(case.folder / "inbox/b1.txt", ns=(2 * 10**18,) * 2),
    "document new": file("inbox/c1.txt", "cat dog dog ferry\n"),
    "copy of a document new": file("inbox/sub/b1.txt", "cat dog bridge\n"),
    "document gone": gone("inbox/b2.txt"),
    "document of a decision gone": gone("inbox/a2.txt"),
    "document renamed": moved("inbox/b1.txt", "inbox/z1.txt"),
    "document of a decision renamed": moved("inbox/a1.txt", "inbox/a9.txt"),
    "document moved to a folder": moved("inbox/b2.txt", "inbox/old/b2.txt"),
    "document that failed edited": file("inbox/bad.txt", "dog ferry\n"),
    "document that failed gone": gone("inbox/bad.txt"),
    "document left out gone": gone("inbox/left.txt"),
    "documents exchanged": both(
        file("inbox/b1.txt", FILES["inbox/b2.txt"]), file("inbox/b2.txt", FILES["inbox/b1.txt"])
    ),
    "decided": decided("a3.txt", "accept"),
    "decided otherwise": decided("a3.txt", "edit", {"topic": "sky"}),
    "rejected": decided("a3.txt", "reject"),
    "decision undone": undone("a1.txt"),
    "rejection undone": undone("sub/a1.txt"),
    "example nearer": both(
        file("inbox/a4.txt", "cat dog dog\n"), ran(), decided("a4.txt", "edit", {"topic": "dogs"})
    ),
    "output edited": file("out/b1.txt.md", "mine\n"),
    "output lost": gone("out/b2.txt.md"),
    "output of an inner item lost": gone("words/b1/2"),
    "output of an inner item edited": file("words/b2/1", "mine\n"),
    "output of a table lost": gone("T.csv"),
    "output replaced by another pipeline": run_other,
    "page of a later block edited": file("again/b1.txt", "mine\n"),
    "a file in the way of a new page": file("pages/b1.txt.md", "not ours\n"),
    "pipeline renamed": rename_pipeline,
    "run of one item with another prompt": both(
        yaml("Kind, ", "Sort, "), ran(only=["b1.txt"]), taken_back("Sort, ", "Kind, ")
    ),
    "run forced": ran(force=["kind"]),
    "run that retries": ran(retry_failed=True),
    "run that prunes": ran(prune=True, is_confirmed=True),
    "run after edits": both(file("inbox/b1.txt", "cat sun\n"), ran()),
}  # fmt: skip
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--prune --yes": {"prune": True, "is_confirmed": True},
    "--force kind": {"force": ["kind"]},
    "--retry-failed": {"retry_failed": True},
    "--take": {"takes_over": True},
    "--only b1.txt": {"only": ["b1.txt"]},
    "--refresh": {"refresh": True},
    "--review skip": {"review": "skip"},
    "--yes": {"is_confirmed": True},
}


def situations() -> list[tuple[str, ...]]:
    """Return the changes of each, and options of the plan: each alone, then some together."""
    dice = random.Random(86)
    found: list[tuple[str, ...]] = [(), *((name,) for name in CHANGES)]
    while len(found) < N_SITUATIONS:
        names = dice.sample([*CHANGES], dice.choice((2, 2, 3)))
        found.append((*names, *([dice.choice([*OPTIONS])] if dice.random() < 0.35 else [])))
    return found


def record(case: Case, names: Sequence[str]) -> str:
    """Return what is told in a situation, a line each."""
    options = {key: value for n in names if n in OPTIONS for key, value in OPTIONS[n].items()}
    try:
        for name in names:
            if name in CHANGES:
                CHANGES[name](case)
        told = case.told(**options)
    finally:
        case.name = "pipeline.yaml"
        case.take_back()
    lines = [f"== {' + '.join(names) or 'nothing'}"]
    for key, value in told.items():
        lines += [f"{key}: {line}" for line in ([value] if isinstance(value, str) else value)]
    return "\n".join(lines)


@contextlib.contextmanager
def told_now(chosen: Sequence[Sequence[str]]) -> Iterator[Iterator[str]]:
    """Yield what is told of each of these situations."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "letters")
        folder.mkdir()
        case = Case(folder)
        yield (record(case, names) for names in chosen)
        shutil.rmtree(folder)


def packed(records: Sequence[str]) -> str:
    """Return records with each line written once: later ones name it by its number."""
    lines: dict[str, int] = {}
    found = list[str]()
    for record_ in records:
        head, *rest = record_.split("\n")
        found.append(head)
        for line in rest:
            found.append(f"{lines[line]}" if line in lines else line)
            lines.setdefault(line, len(lines))
    return "\n".join(found) + "\n"


def unpacked(text: str) -> list[str]:
    lines, found = list[str](), list[list[str]]()
    for line in text.splitlines():
        if line.startswith("== "):
            found.append([line])
        elif line.isdecimal():
            found[-1].append(lines[int(line)])
        else:
            lines.append(line)
            found[-1].append(line)
    return ["\n".join(each) for each in found]


def main(words: Sequence[str]) -> int:
    with told_now(situations()) as told:
        records = [*told]
    if "--write" in words:
        GOLDEN.write_text(packed(records), "utf-8")
        return 0
    n_bad = 0
    for was, now in zip(unpacked(GOLDEN.read_text("utf-8")), records, strict=True):
        if was != now:
            n_bad += 1
            old, new = was.split("\n"), now.split("\n")
            print(now.partition("\n")[0])
            print(*(f"  - {line}" for line in old if line not in new), sep="\n")
            print(*(f"  + {line}" for line in new if line not in old), sep="\n")
    print(f"{len(records)} situations, {n_bad} differ")
    return min(n_bad, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
