"""Every kind of change: a plan counts what the run does, and the outputs are those from scratch.

A run after a change may ask for what a run from scratch asks and the first run did not: nothing
else, and nothing less. So the expected number of calls needs no table.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.runner.api import plan
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, each_document, errors, settings

Change = Callable[["Case"], object]


def answer(request: ChatRequest) -> str:
    """Answer with what the request says, its model and its parameters: each has its own answer."""
    options = sorted({**request.model.params, **request.params}.items())
    text = f"{request.model.ref} {options} {echo(request)}"
    if request.constraint is None:
        return text
    return json.dumps(dict.fromkeys(json.loads(request.constraint.source)["properties"], text))


class Case(World):
    """A pipeline in a folder of its own, whose files change."""

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.write(name, text.replace(old, new))

    def planned(self) -> PlanReport:
        return plan(self.file, pool=_pool(), settings=self._settings())

    def done(self) -> Report:
        own = self._settings()
        report = self.run(pool=_pool(), prune=True, is_confirmed=True, settings=own)
        assert not errors(report), errors(report)
        assert report.status == "completed", report.message
        return report

    def requests(self) -> set[str]:
        """Return what was asked of models in the latest run, without their contexts."""
        chats = (
            repr((
                request.model.ref, request.messages, request.params, request.constraint,
                dict(request.model.params), request.n_logprobs,
            ))
            for request in self.pool.chats
        )  # fmt: skip
        return {*chats, *(repr((request.model.ref, request.texts)) for request in self.pool.embeds)}

    def outputs(self) -> dict[str, bytes]:
        out = self.folder / "out"
        files = (path for path in out.rglob("*") if path.is_file() and ".lance" not in str(path))
        return {str(file.relative_to(out)): file.read_bytes() for file in sorted(files)}

    def forget(self) -> None:
        """Remove all that runs made."""
        for name in (".paddock", "out", "cache", "state", "store.lance"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _settings(self) -> Settings:
        return replace(settings(self.folder), allow=frozenset(("run", "tool", "mcp")))


def _pool(n_ctx_tokens: int = 4096) -> FakePool:
    return FakePool(answer=answer, n_ctx_tokens=n_ctx_tokens)


# --- changes


def edit(name: str, old: str, new: str) -> Change:
    return lambda case: case.change(name, old, new)


def yaml(old: str, new: str) -> Change:
    return edit("pipeline.yaml", old, new)


def both(*changes: Change) -> Change:
    def change(case: Case) -> None:
        for edit in changes:
            edit(case)

    return change


def rename(old: str, new: str) -> Change:
    return lambda case: (case.folder / old).rename(case.folder / new)


def delete(name: str) -> Change:
    return lambda case: (case.folder / name).unlink()


def add(name: str, text: str) -> Change:
    return lambda case: case.write(name, text)


def link(name: str, target: str) -> Change:
    return lambda case: (case.folder / name).symlink_to(target)


def touch(name: str) -> Change:
    return lambda case: os.utime(case.folder / name, ns=(10**18, 10**18))


def behind_the_time(name: str, old: str, new: str) -> Change:
    """Change bytes, and set the time back: neither size nor mtime tells."""
    assert len(old) == len(new)

    def change(case: Case) -> None:
        path = case.folder / name
        facts = path.stat()
        case.change(name, old, new)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    return change


def nothing(_: Case) -> None:
    """Change nothing."""


# --- pipelines

TWO = {f"inbox/{n}.txt": f"Document {n}, about the ferry." for n in range(2)}
DOCUMENTS = {
    "pipeline.yaml": """\
inputs:
  tone: {type: str, default: plain}
models:
  writer: {ref: one, ctx: 2k, params: {top_k: 5}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: note, uses: files.read, with: {path: note.txt}}
      - {id: stem, uses: prompt, with: {template: "{{ doc.stem }}"}}
      - id: sum
        uses: chat
        with:
          system: {file: system.md}
          prompt: "{{ doc.name }}, {{ inputs.tone }}: {{ steps.text.text }} {{ steps.note.text }}"
          params: {temperature: 0.5}
        reply: {schema: {said: str}, check: ["words(output.said) < 99"]}
      - id: page
        uses: files.write
        with:
          path: "out/{{ doc.relpath }}"
          template: {file: page.md}
          vars: {s: "{{ steps.sum.text }}"}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: digest, uses: reduce, with: {over: "{{ steps.each.results }}", prompt: "All:"}}
  - {uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
""",
    "system.md": "Be brief.",
    "page.md": "# {{ doc.stem }}\n{{ s }}\n",
    "note.txt": "The harbour is closed on Sundays.",
    **TWO,
}
PLACES = {
    "pipeline.yaml": each_document("""\
      - {id: sum, uses: chat, with: {prompt: "Of {{ doc.path }}: {{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
"""),
    **TWO,
}


def _with(files: dict[str, str], old: str, new: str) -> dict[str, str]:
    assert old in files["pipeline.yaml"]
    return files | {"pipeline.yaml": files["pipeline.yaml"].replace(old, new)}


LINKED = {name: text for name, text in DOCUMENTS.items() if name != "note.txt"} | {
    "b.txt": "B is open.",
    "c.txt": "C is open.",
}
MOVED = both(rename("inbox", "in2"), yaml("root: ./inbox", "root: ./in2"))
CODE = {
    "pipeline.yaml": """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: own, uses: "own.py:clean", with: {text: "{{ steps.text.text }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.own.result }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
""",
    "own.py": '''\
"""Cleans texts."""
# A comment.
import helper
from pack import part
from pack.deep.below import ended


def clean(text: str) -> str:
    """Clean a text."""
    return ended(part.cut(helper.lower(text)))
''',
    "helper.py": "def lower(text):\n    return text.lower()\n",
    "pack/__init__.py": "MARK = '!'\n",
    "pack/part.py": "from . import MARK\n\n\ndef cut(text):\n    return text[:20] + MARK\n",
    "pack/deep/__init__.py": "",
    "pack/deep/below.py": "from ..tail import END\n\n\ndef ended(text):\n    return text + END\n",
    "pack/tail.py": "END = ' .'\n",
    "unused.py": "X = 1\n",
    **TWO,
}
TOOL = _with(
    CODE,
    '{id: own, uses: "own.py:clean", with: {text: "{{ steps.text.text }}"}}',
    '{id: own, uses: tool, with: {name: "own.py:clean", args: {text: "{{ steps.text.text }}"}}}',
)
COMMAND = _with(
    CODE,
    '{id: own, uses: "own.py:clean", with: {text: "{{ steps.text.text }}"}}',
    "{id: own, uses: run, with: {command: [sh, tools/s.sh, words.txt]}}",
)
COMMAND = _with(COMMAND, "steps.own.result", "steps.text.text }} {{ steps.own.stdout")
COMMAND |= {"tools/s.sh": "cat $1; echo done\n", "words.txt": "one two\n"}
PYTHON_COMMAND = _with(COMMAND, "[sh, tools/s.sh, words.txt]", "[python3, tools/main.py]")
PYTHON_COMMAND |= {
    "tools/main.py": "import sibling\nprint(sibling.WORD)\n",
    "tools/sibling.py": "WORD = 'one'\n",
    "tools/package.py": "from tools.sibling import WORD\nprint(WORD)\n",
}
TREE = {
    "pipeline.yaml": """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
    returns: {file: doc.relpath, text: steps.text.text}
  - id: digest
    uses: reduce
    with: {over: "{{ steps.each.results }}", prompt: "All:", fanin: 2}
  - {uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
""",
    **{f"inbox/{n}.txt": f"Document {n}, about the ferry." for n in range(7)},
}
BEHIND = _with(_with(TREE, "file: doc.relpath, text: steps.text", "text: steps.text"),
               "  - {uses: files.write, with: {path: out/DIGEST.md, text: \"{{ steps.digest",
               "  - {id: said, uses: chat, with: {prompt: \"Of {{ steps.digest.text }}\"}}\n"
               "  - {uses: files.write, with: {path: out/DIGEST.md, text: \"{{ steps.said",
               )  # fmt: skip
GROUPED = _with(_with(BEHIND, "    returns: {text: steps.text.text}",
                      '      - {id: sum, uses: chat, with: {prompt: "Of {{ steps.text.text }}"}}\n'
                      "    returns: {text: steps.sum.text}"),
                "fanin: 2", "by: text")  # fmt: skip
CONTEXT = {
    "pipeline.yaml": """\
models:
  writer: {ref: one, ctx: 200}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: sum, uses: summarise, with: {file: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {file: doc.relpath, text: steps.sum.text}
  - {id: digest, uses: reduce, with: {over: "{{ steps.each.results }}", prompt: "All:"}}
  - {uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
""",
    **TWO,
}
LONG = CONTEXT | {"inbox/2.txt": "A long text about the ferry. " * 60}
NO_CONTEXT = _with(CONTEXT, ", ctx: 200", "")
ROWS = {
    "pipeline.yaml": """\
steps:
  - {id: table, uses: files.rows, with: {path: rows.csv}}
  - id: each
    for_each: row in steps.table.rows
    where: row.kind != "none"
    key: row.id
    do:
      - {id: sum, uses: chat, with: {prompt: "Of {{ row.text }}"}}
      - {uses: files.write, with: {path: "out/{{ row.id }}.txt", text: "{{ steps.sum.text }}"}}
    returns: {id: row.id, sum: steps.sum.text}
  - {id: digest, uses: chat, with: {prompt: "All: {{ steps.each.results }}"}}
  - {uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
""",
    "rows.csv": "id,kind,text,more\na,x,ferry,1\nb,x,pier,2\nc,none,boat,3\n",
}
NESTED = {
    "pipeline.yaml": each_document("""\
      - id: parts
        for_each: word in steps.text.text.split()
        do:
          - {id: sum, uses: chat, with: {prompt: "Word {{ word }} of {{ doc.stem }}"}}
        returns: steps.sum.text
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.parts.results | join(' ') }}"}
"""),
    "inbox/0.txt": "ferry pier",
    "inbox/1.txt": "boat ferry",
}
NESTED_LABEL = _with(NESTED, "returns: steps.sum.text", "returns: inputs.tone ~ steps.sum.text")
NESTED_LABEL = _with(NESTED_LABEL, "steps:\n", "inputs: {tone: plain}\nsteps:\n")
NESTED_PLACE = _with(NESTED, "of {{ doc.stem }}", "of {{ doc.path }}")
INNER = {
    "pipeline.yaml": """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: inner, uses: pipeline, with: {file: inner.yaml, inputs: {file: "{{ doc.path }}"}}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.inner.said }}"}}
""",
    "inner.yaml": """\
inputs:
  file: {type: path}
  tone: {type: str, default: plain}
steps:
  - {id: text, uses: files.read, with: {path: "{{ inputs.file }}"}}
  - {id: sum, uses: chat, with: {prompt: "{{ inputs.tone }}: {{ steps.text.text }}"}}
returns: {said: steps.sum.text}
""",
    **TWO,
}
LISTED = {
    "pipeline.yaml": """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - {id: sum, uses: chat, with: {prompt: "Of {{ steps.docs.files }}"}}
  - {uses: files.write, with: {path: out/all.txt, text: "{{ steps.sum.text }}"}}
""",
    **TWO,
}
NAMES = _with(LISTED, "{{ steps.docs.files }}",
              "{% for f in steps.docs.files %}{{ f.name }} {% endfor %}")  # fmt: skip
STORE = {
    "pipeline.yaml": """\
models:
  vec: {ref: two, role: embed}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: vec, uses: embed, with: {texts: ["{{ steps.text.text }}"], store: store.lance}}
  - {id: found, uses: search, needs: [each], with: {store: store.lance, query: Ferry, k: 2}}
  - {id: sum, uses: chat, with: {prompt: "Of {{ steps.found.hits }}"}}
  - {uses: files.write, with: {path: out/all.txt, text: "{{ steps.sum.text }}"}}
""",
    **TWO,
}

ARGUMENTS = _with(
    _with(CODE, "Sum up: ", "Sum up {{ doc.stem }}: "),
    '{id: own, uses: "own.py:clean", with: {text: "{{ steps.text.text }}"}}',
    "{id: own, uses: 'own.py:say', with: {id: one, model: one, timeout: {b: 1, a: 2}}}",
) | {
    "own.py": (
        "def say(id: str, model: str, timeout: dict) -> str:\n"
        "    return f'{id} {model} {timeout}'\n"
    )
}
LOADED = CODE | {
    "own.py": CODE["own.py"].replace(
        "import helper\n", 'import importlib\nhelper = importlib.import_module("helper")\n'
    )
}
ORDER = {
    "pipeline.yaml": """\
steps:
  - {id: table, uses: files.rows, with: {path: rows.csv}}
  - {id: other, uses: files.rows, with: {path: other.csv}}
  - id: each
    for_each: row in steps.table.rows
    key: row.id
    do:
      - id: text
        uses: prompt
        with: {template: "{{ m }}", vars: {m: {p: 1, q: 2}, n: 3}}
      - id: sum
        uses: chat
        with: {prompt: "{{ row }} {{ steps.other.rows }}", params: {top_k: 5, seed: 1}}
        reply: {schema: {said: str, more: str}}
      - {uses: files.write, with: {path: "out/{{ row.id }}.csv", rows: [{k: "{{ row.id }}", j: 1}]}}
      - uses: files.write
        with: {path: "out/{{ row.id }}.txt", text: "{{ steps.sum.text }} {{ steps.text.text }}"}
    returns: {id: row.id, sum: steps.sum.text}
  - {uses: files.write, with: {path: out/all.csv, rows: "{{ steps.each.results }}"}}
""",
    "rows.csv": "id,x,y\na,1,2\nb,3,4\n",
    "other.csv": "r,s\n5,6\n",
}
SUFFIXES = {
    "pipeline.yaml": """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    key: doc.stem
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.stem }}", text: "{{ steps.text.text }}"}}
""",
    "inbox/0.html": "<p>One &amp; two</p>",
    "inbox/1.txt": "Three",
}
EACH, QUIET = "each", ("fresh", "skipped")
CALLS = {"smaller ctx": 3}
"""Calls that a run from scratch would not tell: a reply may depend on its context."""
STATES = {"key": dict.fromkeys("ab", "deleted")}
"""States that a reason does not tell: rows under their old keys."""
BOTH = ("0.txt", "1.txt")
"""The documents, where all of them are done again."""


def _all(why: str) -> dict[str, str | None]:
    return dict.fromkeys(BOTH, why)


def _first(why: str) -> dict[str, str | None]:
    return {"0.txt": why}


PROMPT = _all("prompt changed (step 'sum')")
CHECKS = _all("checks changed (step 'sum')")
PATH = _all("its path changed")
FUNCTION = _all("code of own.py, or of what it imports, changed (step 'own')")
HELPER = _all("file changed: helper.py (step 'own')")
EDITED = _first("content changed")

# fmt: off
KINDS: dict[str, tuple[dict[str, str], Change, dict[str, str | None]]] = {
    # kind: the files, the change, and the reasons of what is not fresh in the block `each`
    "nothing": (DOCUMENTS, nothing, {}),
    # --- texts and parameters
    "prompt": (DOCUMENTS, yaml(", {{ inputs.tone }}:", " ({{ inputs.tone }}):"), PROMPT),
    "prompt that reads as before": (DOCUMENTS, yaml("{{ doc.name }}", "{{ doc['name'] }}"), PROMPT),
    "system file": (DOCUMENTS, edit("system.md", "brief", "short"), PROMPT),
    "template file": (DOCUMENTS, edit("page.md", "# ", "## "),
        _all("template changed (step 'page')")),
    "output path": (DOCUMENTS, yaml("out/{{ doc.relpath }}", "out/{{ doc.stem }}.md"),
        _all("`path` changed (step 'page')")),
    "prompt and output path": (DOCUMENTS,
        both(yaml("{{ doc.name }}", "{{ doc.stem }}"),
            yaml("out/{{ doc.relpath", "out/x{{ doc.relpath")),
        _all("prompt changed (step 'sum'); `path` changed (step 'page')")),
    "schema": (DOCUMENTS, yaml("schema: {said: str}", "schema: {said: 'str?'}"),
        _all("schema changed (step 'sum')")),
    "check": (DOCUMENTS, yaml("< 99", "< 98"), CHECKS),
    "one more check": (DOCUMENTS,
        yaml('["words(output.said) < 99"]', '["words(output.said) < 99", "output.said != \'x\'"]'),
        CHECKS),
    "checks where there was a schema alone": (
        _with(DOCUMENTS, ', check: ["words(output.said) < 99"]', ""),
        yaml("schema: {said: str}", 'schema: {said: str}, check: ["words(output.said) < 99"]'),
        CHECKS),
    "repair": (DOCUMENTS, yaml('< 99"]', '< 99"], repair: 3'), CHECKS),
    "no reply any more": (DOCUMENTS,
        yaml('        reply: {schema: {said: str}, check: ["words(output.said) < 99"]}\n', ""),
        _all("schema changed (step 'sum'); checks changed (step 'sum')")),
    "evidence": (DOCUMENTS, yaml("check: [", "evidence: steps.text, check: ["),
        _all("sources of its evidence changed (step 'sum')")),
    "model": (DOCUMENTS, yaml("ref: one", "ref: two"), _all("model changed (step 'sum')")),
    "alias of the model": (DOCUMENTS, yaml("  writer:", "  author:"), {}),
    "params of the model": (DOCUMENTS, yaml("top_k: 5", "top_k: 6"),
        _all("`params` of its model changed (step 'sum')")),
    "params of the step": (DOCUMENTS, yaml("temperature: 0.5", "temperature: 0.6"),
        _all("`params` changed (step 'sum')")),
    "larger ctx": (DOCUMENTS, yaml("ctx: 2k", "ctx: 3k"), {}),
    "smaller ctx": (DOCUMENTS, yaml("ctx: 2k", "ctx: 1k"),
        _all("`ctx` of its model changed (step 'sum')")),
    "input": (DOCUMENTS, yaml("default: plain", "default: merry"),
        _all("value changed: inputs.tone")),
    "returns": (DOCUMENTS,
        yaml("returns: {file: doc.relpath, sum", "returns: {file: doc.stem, sum"),
        _all("`returns` changed (step 'each')")),
    "prompt of the digest": (DOCUMENTS, yaml('prompt: "All:"', 'prompt: "Both:"'), {}),
    "condition that holds": (DOCUMENTS,
        yaml("      - id: page\n", "      - id: page\n        if: doc.size > 0\n"),
        _all("`if` changed (step 'page')")),
    "one more step": (DOCUMENTS,
        yaml("      - id: sum\n",
            "      - {id: more, uses: prompt, with: {template: Hi}}\n      - id: sum\n"),
        _all("step 'more' is new")),
    "a step less": (DOCUMENTS,
        yaml('      - {id: stem, uses: prompt, with: {template: "{{ doc.stem }}"}}\n', ""),
        _all("step 'stem' was removed")),
    "renamed step": (DOCUMENTS, yaml("id: page", "id: sheet"),
        _all("step 'page' was removed; step 'sheet' is new")),
    "key that is the same for each item": (DOCUMENTS,
        yaml("    do:\n", "    key: doc.relpath\n    do:\n"), {}),
    "key that reads more of the item": (_with(DOCUMENTS, "{{ doc.name }}", "{{ doc.stem }}"),
        yaml("    do:\n", "    key: doc.name\n    do:\n"), _all("`key` changed")),
    "max_parallel": (DOCUMENTS, yaml("    do:\n", "    max_parallel: 2\n    do:\n"), {}),
    "retry and timeout": (DOCUMENTS,
        yaml("        uses: chat\n",
            "        uses: chat\n        retry: {times: 2}\n        timeout: {total: 5m}\n"), {}),
    "a comment in the YAML": (DOCUMENTS, yaml("steps:\n", "# Steps.\nsteps:\n"), {}),
    "name and description": (DOCUMENTS, yaml("inputs:\n", "description: Sums up.\ninputs:\n"), {}),
    # --- documents
    "document": (DOCUMENTS, edit("inbox/0.txt", "ferry", "boat"), EDITED),
    "document of the same size and time": (DOCUMENTS,
        behind_the_time("inbox/0.txt", "ferry", "boats"), EDITED),
    "document and prompt": (
        DOCUMENTS,
        both(edit("inbox/0.txt", "ferry", "boat"), yaml("{{ doc.name }}", "{{ doc.stem }}")),
        _first("content changed; prompt changed (step 'sum')")
        | {"1.txt": "prompt changed (step 'sum')"},
    ),
    "new document": (DOCUMENTS, add("inbox/2.txt", "New."), {"2.txt": None}),
    "deleted document": (DOCUMENTS, delete("inbox/1.txt"), {"1.txt": "its source is gone"}),
    "renamed document": (DOCUMENTS, rename("inbox/1.txt", "inbox/3.txt"),
        {"3.txt": "renamed from '1.txt'"}),
    "renamed and edited document": (DOCUMENTS,
        both(rename("inbox/1.txt", "inbox/3.txt"), edit("inbox/3.txt", "ferry", "boat")),
        {"1.txt": "its source is gone", "3.txt": None}),
    "swapped documents": (DOCUMENTS,
        both(rename("inbox/0.txt", "x"), rename("inbox/1.txt", "inbox/0.txt"),
            rename("x", "inbox/1.txt")), _all("content changed")),
    "touched document": (DOCUMENTS, touch("inbox/0.txt"), {}),
    "touched document whose time is read": (
        _with(DOCUMENTS, "{{ doc.name }}", "{{ doc.modified }}"), touch("inbox/0.txt"),
        _first("its time changed")),
    "excluded document": (DOCUMENTS, yaml("root: inbox", "root: inbox, exclude: [1.txt]"),
        {"1.txt": "no longer in the list"}),
    "included documents": (DOCUMENTS, yaml("root: inbox", "root: inbox, include: ['0*']"),
        {"1.txt": "no longer in the list"}),
    "another file that is read": (DOCUMENTS, edit("note.txt", "Sundays", "Mondays"),
        _all("file changed: note.txt")),
    "another file that is read, of the same size and time": (DOCUMENTS,
        behind_the_time("note.txt", "Sundays", "Mondays"), _all("file changed: note.txt")),
    "another file that is read, touched": (DOCUMENTS, touch("note.txt"), {}),
    "link to another file that is read": (LINKED,
        both(delete("note.txt"), link("note.txt", "c.txt")),
        _all("file changed: note.txt")),
    "link to another file that is read, whose target changed": (LINKED, edit("b.txt", "B", "D"),
        _all("file changed: note.txt")),
    # --- outputs
    "missing output": (DOCUMENTS, delete("out/0.txt"), _first("output is missing: out/0.txt")),
    "touched output": (DOCUMENTS, touch("out/0.txt"), {}),
    # --- places
    "another root": (DOCUMENTS, both(rename("inbox", "in2"), yaml("root: inbox", "root: in2")), {}),
    "another root where the path is read": (PLACES, MOVED, PATH),
    "another root where a nested block reads the path": (NESTED_PLACE, MOVED, PATH),
    "another root, nested": (NESTED, MOVED, {}),
    "another root where a pipeline within is given the path": (INNER, MOVED, PATH),
    "another root, and the path in a command": (COMMAND,
        both(rename("inbox", "in2"), yaml("root: inbox", "root: in2")), {}),
    "touched file in a whole list": (LISTED, touch("inbox/0.txt"), {}),
    "touched file in a list of names": (NAMES, touch("inbox/0.txt"), {}),
    # --- code
    "function": (CODE, edit("own.py", "lower(text)", "lower('x' + text)"), FUNCTION),
    "comment in a function's file": (CODE, edit("own.py", "# A comment.", "# Another comment."),
        {}),
    "module that a function imports": (CODE, edit("helper.py", "lower()", "upper()"), FUNCTION),
    "arguments of a function that are named as keys of steps": (ARGUMENTS,
        yaml("id: one", "id: two"), _all("`id` changed (step 'own')")),
    "order within an argument of a function": (ARGUMENTS, yaml("{b: 1, a: 2}", "{a: 2, b: 1}"),
        _all("`timeout` changed (step 'own')")),
    "module that is imported by its name": (LOADED, edit("helper.py", "lower()", "upper()"),
        FUNCTION),
    "comment in a module": (CODE, edit("helper.py", "def", "# Lower.\ndef"), {}),
    "package that a function imports": (CODE, edit("pack/__init__.py", "!", "?"), FUNCTION),
    "module two levels up": (CODE, edit("pack/tail.py", "' .'", "' ,'"), FUNCTION),
    "module that nothing imports": (CODE, edit("unused.py", "1", "2"), {}),
    "tool": (TOOL, edit("own.py", "lower(text)", "lower('x' + text)"),
        _all("file changed: own.py (step 'own')")),
    "module that a tool imports": (TOOL, edit("helper.py", "lower()", "upper()"), HELPER),
    "script of a command": (COMMAND, edit("tools/s.sh", "done", "over"),
        _all("file changed: tools/s.sh")),
    "file of a command": (COMMAND, edit("words.txt", "two", "three"),
        _all("file changed: words.txt")),
    "script that a command names with its folder": (
        _with(COMMAND, "[sh, tools/s.sh, words.txt]", "[sh, s.sh, ../words.txt], cwd: tools"),
        edit("tools/s.sh", "done", "over"), _all("file changed: tools/s.sh")),
    "Python script of a command": (PYTHON_COMMAND, edit("tools/main.py", "print(", "print('x', "),
        _all("file changed: tools/main.py")),
    "module of a command's Python script": (PYTHON_COMMAND,
        edit("tools/sibling.py", "one", "three"), _all("file changed: tools/sibling.py")),
    "package of a command's Python module": (
        _with(PYTHON_COMMAND, "[python3, tools/main.py]", "[python3, -m, tools.package]"),
        edit("tools/sibling.py", "one", "three"), _all("file changed: tools/sibling.py")),
    # --- trees, contexts, rows, blocks, pipelines, stores
    "one of seven in a narrow tree": (TREE, edit("inbox/3.txt", "ferry", "boat"),
        {"3.txt": "content changed"}),
    "renamed document of a tree, and what reads its answer": (BEHIND,
        rename("inbox/3.txt", "inbox/3b.txt"), {"3b.txt": "renamed from '3.txt'"}),
    "a result more that nothing reads": (BEHIND,
        yaml("{text: steps", "{size: doc.size, text: steps"),
        {f"{n}.txt": "`returns` changed (step 'each')" for n in range(7)}),
    "larger ctx, summaries": (CONTEXT, yaml("ctx: 200", "ctx: 400"), {}),
    "larger ctx, one document too long": (LONG, yaml("ctx: 200", "ctx: 400"),
        {"2.txt": "`ctx` of its model changed (step 'sum')"}),
    "a ctx where there was none": (NO_CONTEXT, yaml("ref: one", "ref: one, ctx: 4k"), {}),
    "no ctx any more": (CONTEXT, yaml(", ctx: 200", ""), {}),
    "row": (ROWS, edit("rows.csv", "ferry", "ship"), {"a": "content changed"}),
    "column that is read, and named as the time of a file": (
        {name: text.replace("text", "modified") if name == "rows.csv" else text
            for name, text in _with(ROWS, "{{ row.text }}", "{{ row.modified }}").items()},
        edit("rows.csv", "ferry", "ship"), {"a": "content changed"}),
    "column that is not read": (ROWS, edit("rows.csv", "ferry,1", "ferry,7"), {}),
    "order of the rows": (ROWS,
        edit("rows.csv", "a,x,ferry,1\nb,x,pier,2\n", "b,x,pier,2\na,x,ferry,1\n"), {}),
    "row that is left out": (ROWS, edit("rows.csv", "b,x", "b,none"), {"b": "left out by `where`"}),
    "order of columns, in a row that is read whole": (ORDER,
        add("rows.csv", "id,y,x\na,2,1\nb,4,3\n"), dict.fromkeys("ab", "content changed")),
    "order of columns, in a table that is read whole": (ORDER, add("other.csv", "s,r\n6,5\n"),
        dict.fromkeys("ab", "value changed: steps.other.rows")),
    "order of what a block returns": (ORDER,
        yaml("{id: row.id, sum: steps.sum.text}", "{sum: steps.sum.text, id: row.id}"),
        dict.fromkeys("ab", "`returns` changed (step 'each')")),
    "order of the fields of a schema": (ORDER,
        yaml("{said: str, more: str}", "{more: str, said: str}"),
        dict.fromkeys("ab", "schema changed (step 'sum')")),
    "order within a variable": (ORDER, yaml("{p: 1, q: 2}", "{q: 2, p: 1}"),
        dict.fromkeys("ab", "`vars` changed (step 'text')")),
    "order within rows that are written": (ORDER,
        yaml('[{k: "{{ row.id }}", j: 1}]', '[{j: 1, k: "{{ row.id }}"}]'),
        dict.fromkeys("ab", "`rows` changed (step '(files.write)')")),
    "order of names that shows nowhere": (ORDER,
        both(yaml("{top_k: 5, seed: 1}", "{seed: 1, top_k: 5}"),
            yaml("vars: {m: {p: 1, q: 2}, n: 3}", "vars: {n: 3, m: {p: 1, q: 2}}"),
            yaml('template: "{{ m }}", vars: {n: 3, m: {p: 1, q: 2}}',
                'vars: {n: 3, m: {p: 1, q: 2}}, template: "{{ m }}"')), {}),
    "another kind of document under the same key": (SUFFIXES,
        rename("inbox/0.html", "inbox/0.txt"), {"0": "the ending of its name changed"}),
    "where": (ROWS, yaml('"none"', '"nothing"'), {"c": None}),
    "key": (ROWS, yaml("key: row.id", "key: row.text"),
        {"a": "`key` changed", "b": "`key` changed", "ferry": None, "pier": None}),
    "key of a file": (DOCUMENTS, yaml("    do:\n", "    key: doc.stem\n    do:\n"),
        {"0": "`key` changed: it was '0.txt'", "1": "`key` changed: it was '1.txt'"}),
    "word of a nested block": (NESTED, edit("inbox/0.txt", "pier", "quay"), EDITED),
    "prompt of a nested block": (NESTED, yaml("Word {{", "The word {{"), PROMPT),
    "input of what a nested block returns": (NESTED_LABEL, yaml("tone: plain", "tone: merry"),
        _all("value changed: inputs.tone")),
    "prompt of a pipeline within": (INNER, edit("inner.yaml", "}}: {{", "}}; {{"),
        _all("prompt changed (step 'inner.sum')")),
    "input of a pipeline within": (INNER, edit("inner.yaml", "plain", "merry"),
        _all("parameters changed (step 'inner.(returns)')")),
    "type of an input of a pipeline within": (
        INNER | {"inner.yaml": INNER["inner.yaml"].replace("{type: str, default: plain}",
            "{type: str, default: '007'}")},
        edit("inner.yaml", "{type: str, default: '007'}", "{type: int, default: 7}"),
        _all("parameters changed (step 'inner.(returns)')")),
    "document of a pipeline within": (INNER, edit("inbox/0.txt", "ferry", "boat"), EDITED),
    "document of a store": (STORE, edit("inbox/0.txt", "ferry", "boat"), EDITED),
    "deleted document of a store": (STORE, delete("inbox/0.txt"), _first("its source is gone")),
    "query of a search": (STORE, yaml("query: Ferry", "query: Boat"), {}),
}
# fmt: on


def _state(reason: str | None) -> str:
    """Return an item's state by its reason."""
    if reason is None or reason.startswith(("renamed from", "`key` changed: it was")):
        return "new"
    if reason in ("its source is gone", "no longer in the list", "left out by `where`"):
        return "deleted"
    return "changed" if reason.startswith("content changed") else "stale"


@pytest.fixture(scope="module")
def after_first_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[dict[str, str], Path], tuple[Case, set[str]]]:
    """Return what copies a folder after its first run, and tells what was asked in that.

    The first run is one for all kinds of change that begin with the same files.
    """
    made: dict[str, tuple[Path, set[str]]] = {}

    def copied(files: dict[str, str], to: Path) -> tuple[Case, set[str]]:
        if repr(files) not in made:
            first = Case(tmp_path_factory.mktemp("first"), files["pipeline.yaml"], files)
            if files is LINKED:
                link("note.txt", "b.txt")(first)
            first.done()
            made[repr(files)] = first.folder, first.requests()
        folder, requests = made[repr(files)]
        shutil.copytree(folder, to, symlinks=True, dirs_exist_ok=True)
        return Case(to, files["pipeline.yaml"]), requests

    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_counts_what_the_run_does_and_the_outputs_are_those_from_scratch(
    tmp_path: Path,
    after_first_run: Callable[[dict[str, str], Path], tuple[Case, set[str]]],
    kind: str,
) -> None:
    files, change, reasons = KINDS[kind]
    case, before = after_first_run(files, tmp_path)
    assert case.done().calls == 0  # all documents are known in their folder
    change(case)

    planned = case.planned()
    stale = [i for i in planned.items if i.step == EACH and i.state not in QUIET]
    report = case.done()
    done = {i.key: i.state for i in report.items if i.step == EACH and i.state not in QUIET}
    gone = {i.key: i.why for i in report.items if i.step == EACH and i.state == "deleted"}
    calls, outputs = report.calls, case.outputs()
    assert not case.planned().has_work
    case.forget()
    case.done()
    assert outputs == case.outputs()
    needed = CALLS.get(kind, len(case.requests() - before))
    assert (planned.likely_calls, calls) == (needed, needed)
    assert planned.calls is not None
    assert calls == planned.calls or (planned.calls_are != "exact" and calls < planned.calls)
    assert {i.key: i.why for i in stale} == reasons
    assert gone == {i.key: i.why for i in stale if i.state == "deleted"}
    states = {key: _state(reason) for key, reason in reasons.items()} | STATES.get(kind, {})
    assert {i.key: i.state for i in stale} == done == states


def test_a_plan_bounds_the_calls_of_groups_that_answers_decide(tmp_path: Path) -> None:
    case = Case(tmp_path, GROUPED["pipeline.yaml"], GROUPED)
    for change in (nothing, yaml("Of {{ steps.text", "About {{ steps.text")):
        change(case)
        planned, done = case.planned(), case.done()
        assert planned.calls is not None
        assert planned.calls_are == "at most"
        assert (planned.least_calls or 0) <= done.calls <= planned.calls


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (yaml("ref: two", "ref: three"), "holds vectors of model 'two', and those of 'three'"),
        (yaml("texts: [", "dimensions: 4, texts: ["), "holds vectors of 8 dimensions, not of 4."),
    ],
    ids=["model", "dimensions"],
)
def test_a_plan_says_that_a_store_of_other_vectors_will_stop_the_run(
    tmp_path: Path, change: Change, says: str
) -> None:
    case = Case(tmp_path, STORE["pipeline.yaml"], STORE)
    case.done()
    change(case)
    (remark,) = case.planned().remarks
    assert remark.startswith("The run will stop at step 'vec': the store ")
    assert says in remark


@pytest.mark.parametrize(("was", "now", "done"), [(200, 4096, 1), (2000, 4096, 0), (4096, 200, 3)])
def test_another_default_context_counts_as_one_that_the_author_sets(
    tmp_path: Path, was: int, now: int, done: int
) -> None:
    files = LONG | {"pipeline.yaml": NO_CONTEXT["pipeline.yaml"]}
    case = Case(tmp_path, files["pipeline.yaml"], files)
    for n_ctx_tokens in (was, now):
        planned = plan(case.file, pool=_pool(n_ctx_tokens), settings=settings(case.folder))
        report = case.run(pool=_pool(n_ctx_tokens))
        assert not case.run(pool=_pool(n_ctx_tokens)).calls
    stale = [item.key for item in planned.items if item.step == EACH and item.state == "stale"]
    assert len(stale) == done
    assert [i.key for i in report.items if i.step == EACH and i.state == "stale"] == stale
    outputs = case.outputs()
    case.forget()
    case.run(pool=_pool(now))
    assert outputs == case.outputs()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'# coding: latin-1\nW = "\xc3\xa9"\n', b'# coding: utf-8\nW = "\xc3\xa9"\n'),
        (b'# A comment.\rW = "one"\n# End.\n', b'# A comment.\rW = "two"\n# End.\n'),
    ],
    ids=["the encoding that a comment names", "code after an old line ending"],
)
def test_code_that_looks_like_a_comment_counts(tmp_path: Path, before: bytes, after: bytes) -> None:
    files = CODE | {"helper.py": ""}
    case = Case(tmp_path, files["pipeline.yaml"], files)
    case.change("own.py", "helper.lower(text)", "text + helper.W")
    (tmp_path / "helper.py").write_bytes(before)
    case.done()
    (tmp_path / "helper.py").write_bytes(after)
    assert {item.why for item in case.planned().items if item.step == EACH} == {FUNCTION["0.txt"]}
