"""A plan tells how many calls the run will make, or at most how many; a digest costs one path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import WorkerLost
from paddock.engine.request import ChatRequest, ToolCall
from paddock.runner.api import plan, run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, settings

PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - id: digest
    uses: reduce
    with: {over: "{{ steps.each.results }}", fanin: 4, prompt: "All: {{ notes | join(' ') }}"}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
returns: {text: steps.digest.text, levels: steps.digest.levels}
"""


def digest_calls(pool: FakePool) -> int:
    return sum(request.messages[-1].content.startswith("All: ") for request in pool.chats)


def test_one_document_more_changed_or_gone_costs_one_path_and_the_plan_tells_it(
    tmp_path: Path,
) -> None:
    here = World(tmp_path, PIPELINE, n_documents=40)
    first = here.plan()
    here.run()
    whole = digest_calls(here.pool)
    assert whole > 12
    assert first.calls is not None
    assert 40 + whole <= first.calls < 1.3 * (40 + whole), "fewer fit together if answers are long"
    assert first.calls_are == "at most"
    assert (here.plan().calls, here.run().calls) == (0, 0)

    def change(act: str) -> int:
        """Do something to the documents; gives the digest's calls, which the plan has told."""
        if act == "new":
            here.write("inbox/20-more.txt", "About the harbour.")
        elif act == "changed":
            here.write("inbox/7.txt", "Document 7, about something else.")
        else:
            (tmp_path / "inbox" / "31.txt").unlink()
        is_more = act != "gone"
        plan = here.plan()
        [item] = [item for item in plan.items if item.step == "digest"]
        report = here.run()
        n = digest_calls(here.pool)
        assert plan.calls is not None
        assert plan.calls >= report.calls == n + is_more
        assert plan.calls_are == "at most"
        assert item.state == "stale"
        n_calls = report.calls + report.cached_calls - is_more
        assert str(item.why).endswith(f"{n} of its {n_calls} calls are to be made")
        assert 0 < n < whole / 2
        assert here.run().calls == 0
        return n

    assert change("changed") == here.run().returns["levels"]
    change("new")
    change("gone")
    answer = here.run().returns
    scratch = World(tmp_path / "scratch", PIPELINE)
    for document in (tmp_path / "inbox").iterdir():
        scratch.write(f"inbox/{document.name}", document.read_text("utf-8"))
    assert scratch.run().returns == answer


def test_an_empty_folder_has_no_digest_and_is_no_failure(tmp_path: Path) -> None:
    here = World(tmp_path, PIPELINE)
    (tmp_path / "inbox").mkdir()
    report = here.run()
    assert report.status == "completed"
    assert report.calls == 0
    assert not (tmp_path / "out").exists()


def test_a_run_that_died_within_the_tree_asks_for_no_part_of_it_again(tmp_path: Path) -> None:
    here = World(tmp_path, PIPELINE, n_documents=30)
    n_answered = 0

    def dying(request: ChatRequest) -> str:
        nonlocal n_answered
        if n_answered == 36:
            raise WorkerLost("gone", "died")
        n_answered += 1
        return echo(request)

    died = here.run(pool=FakePool(answer=dying))
    assert died.status == "failed"
    rest = here.run()
    scratch = World(tmp_path / "scratch", PIPELINE, n_documents=30)
    assert n_answered + rest.calls == scratch.run().calls
    assert rest.returns == scratch.run().returns


# --- a plan's number of calls against the run's, over many kinds of pipelines

SCAN = "  - {id: docs, uses: files.scan, with: {root: ./inbox}}\n"
READ = '      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}\n'
EACH = f"steps:\n{SCAN}  - id: each\n    for_each: doc in steps.docs.files\n    do:\n{READ}"
SUM = '      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}\n'
WRITE = """\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
"""
TITLED = """\
      - {uses: chat, with: {prompt: "{{ steps.text.text }} {{ steps.sum.output.title }}"}}
"""
SUM_STEP = "\n      - {id: sum"
LONG = " ".join(f"Sentence {n} says something else about the harbour." for n in range(60))


@dataclass(frozen=True)
class Case:
    """A pipeline; `are` is what its first plan says of the number of calls."""

    name: str
    text: str
    are: str = "exact"
    calls: int | None = None
    """What the plan must say, where it can be counted by hand."""
    documents: int = 3
    answer: Callable[[ChatRequest], str | list[ToolCall]] = echo
    n_ctx_tokens: int = 4096
    extra: Mapping[str, str] = field(default_factory=dict)
    again: str = "0 exact"
    """What the plan after the first run says."""


def always(text: str) -> Callable[[ChatRequest], str]:
    return lambda request: text


def calls_twice(request: ChatRequest) -> str | list[ToolCall]:
    """Call a tool in the first turn, and answer in the second."""
    has_result = any(message.role == "tool" for message in request.messages)
    return "42" if has_result else [ToolCall("calculator", {"expression": "6 * 7"}, "1")]


CASES = [
    Case("one prompt", "steps: [{id: a, uses: chat, with: {prompt: Hi}}]\n", calls=1),
    Case("a block", EACH + SUM + WRITE, calls=3),
    Case("no documents", EACH + SUM + WRITE, calls=0, documents=0),
    Case(
        "two calls for each item, the second about the first",
        EACH
        + SUM
        + '      - {id: t, uses: chat, with: {prompt: "In short: {{ steps.sum.text }}"}}\n',
        "at most",  # two documents may get the same answer
        6,
    ),
    Case(
        "two calls for each item, both about the document",
        EACH + SUM + "      - id: t\n        uses: chat\n"
        '        with: {prompt: "{{ steps.text.text }} {{ steps.sum.text }}"}\n',
        calls=6,
    ),
    Case(
        "a class first, which is the same for all",
        EACH + SUM + '      - {id: t, uses: chat, with: {prompt: "About {{ steps.sum.text }}s"}}\n',
        "at most",
        6,
        answer=always("invoice"),
    ),
    Case(
        "equal documents",
        EACH + SUM,
        calls=3,
        documents=2,
        extra={"inbox/x.txt": "The same.", "inbox/y.txt": "The same."},
    ),
    Case(
        "equal documents whose replies are not taken from the ledger",
        EACH + SUM.replace("{id: sum, ", "{id: sum, cache: off, "),
        calls=4,
        documents=2,
        extra={"inbox/x.txt": "The same.", "inbox/y.txt": "The same."},
    ),
    Case(
        "equal documents in equal vectors",
        EACH + '      - {uses: embed, with: {texts: ["{{ steps.text.text }}"]}}\n',
        calls=3,
        documents=2,
        extra={"inbox/x.txt": "The same.", "inbox/y.txt": "The same."},
    ),
    Case(
        "a label first, by which equal prompts may be others",
        EACH
        + SUM.replace('}"}}\n', "}\"}, reply: {schema: {kind: 'enum[bill, letter]'}}}\n")
        + '      - {id: t, uses: chat, with: {prompt: "About {{ steps.sum.output.kind }}s"}}\n',
        "at most",
        8,
        documents=4,
        answer=lambda request: (
            '{"kind": "bill"}' if "1" in request.messages[-1].content else '{"kind": "letter"}'
        ),
    ),
    Case("equal questions of two steps", EACH + SUM + SUM.replace("id: sum", "id: again"), calls=3),
    Case(
        "the notes of equal documents",
        "steps:\n  - {id: docs, uses: files.scan, with: {root: ./inbox}}\n  - id: each\n"
        "    for_each: doc in steps.docs.files\n    do:\n"
        '      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}\n'
        "    returns: steps.text.text\n  - id: all\n    uses: reduce\n"
        '    with: {over: "{{ steps.each.results }}", prompt: All, fanin: 2}\n',
        "at most",
        documents=0,
        extra={f"inbox/{n}.txt": "The same." for n in range(6)},
    ),
    Case("an empty document", EACH + SUM, calls=3, extra={"inbox/empty.txt": ""}),
    Case(
        "a condition on the document",
        EACH + SUM.replace("{id: sum, ", "{id: sum, if: \"'1' in steps.text.text\", "),
        calls=1,
    ),
    Case(
        "a condition on an answer",
        EACH + SUM + "      - {id: t, uses: chat, if: \"'1' in steps.sum.text\", "
        'with: {prompt: "Again: {{ steps.text.text }}"}}\n',
        "at most",
        6,
    ),
    Case(
        "what reads a step that an answer may skip",
        EACH + SUM + "      - {id: t, uses: chat, if: \"'1' in steps.sum.text\", "
        'with: {prompt: "Again: {{ steps.text.text }}"}}\n'
        '      - {uses: chat, with: {prompt: "{{ steps.text.text }} {{ steps.t.text }}"}}\n',
        "at most",
        9,
    ),
    Case(
        "checks that may fail",
        EACH
        + SUM.replace("}}\n", "}, reply: {check: [\"'[' in text\"], repair: 2}}\n", 1).replace(
            '}}"}, reply', '}}"}, reply'
        ),
        "at most",
        9,
    ),
    Case(
        "checks that fail",
        EACH + SUM.replace('}"}}\n', '}"}, reply: {check: ["\'no\' in text"], repair: 2}}\n'),
        "at most",
        9,
    ),
    Case(
        "an answer in a form",
        EACH
        + SUM.replace('}"}}\n', "}\"}, reply: {schema: {title: str, points: 'list[str]'}}}\n")
        + TITLED,
        calls=6,
        answer=always('{"title": "A", "points": []}'),
    ),
    Case(
        "retries of refused answers",
        EACH
        + SUM.replace(
            '}"}}\n', '}"}, reply: {check: ["\'no\' in text"]}, retry: {times: 2, on: [check]}}\n'
        ),
        "at most",
        18,
    ),
    Case(
        "extracts, and what is asked about them",
        EACH + '      - {id: sum, uses: summarise, with: {text: "{{ steps.text.text }} We all went '
        'home.", how: extract, words: 8}}\n      - {id: t, uses: chat, '
        'with: {prompt: "{{ steps.text.text }} {{ steps.sum.text }}"}}\n',
        calls=6,
    ),
    Case(
        "an agent",
        "steps:\n  - {id: a, uses: agent, with: {prompt: Count, tools: [calculator], "
        "max_turns: 4}}\n",
        "at most",
        5,
        answer=calls_twice,
    ),
    Case(
        "an agent that uses all its turns",
        "steps:\n  - {id: a, uses: agent, with: {prompt: Count, tools: [now], max_turns: 2, "
        "memory: summary}}\n",
        "at most",
        5,
        answer=lambda request: (
            "done" if request.tool_choice == "none" else [ToolCall("now", {}, "1")]
        ),
    ),
    Case(
        "a chat that may ask for tools",
        EACH + '      - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}", '
        "tools: [calculator]}}\n",
        "at most",
        3,
    ),
    Case(
        "a chat with tools whose answer has a form",
        EACH + '      - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}", '
        "tools: [calculator]}, reply: {schema: {said: str}}}\n",
        "at most",
        9,
        answer=lambda request: '{"said": "x"}' if request.constraint else "x",
    ),
    Case(
        "tools that call no model",
        "steps:\n  - {id: t, uses: tool, with: {name: calculator, args: {expression: '2 + 2'}}}\n"
        '  - {id: a, uses: chat, with: {prompt: "Say {{ steps.t.result }}"}}\n',
        "at most",
        1,
        again="1 at most",  # the tool may give something else
    ),
    Case(
        "a block within a block",
        "steps:\n  - id: all\n    for_each: area in ['north', 'south']\n    key: area\n    do:\n"
        '      - {id: docs, uses: files.scan, with: {root: "areas/{{ area }}"}}\n'
        "      - id: each\n        for_each: doc in steps.docs.files\n        do:\n"
        '          - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}\n'
        '          - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}"}}\n'
        '      - {id: one, uses: chat, with: {prompt: "{{ area }}: {{ steps.each.results }}"}}\n',
        calls=5,
        extra={f"areas/{n}.txt": f"Text {n}." for n in ("north/1", "north/2", "south/3")},
    ),
    Case(
        "a list that a model makes",
        "steps:\n  - id: all\n    for_each: word in ['a', 'b']\n    do:\n"
        '      - {id: l, uses: chat, with: {prompt: "{{ word }}"}, '
        "reply: {schema: {points: 'list[str]'}}}\n"
        "      - id: each\n        for_each: point in steps.l.output.points\n        do:\n"
        '          - {uses: chat, with: {prompt: "More of {{ point }}"}}\n',
        "unknown",
        answer=lambda request: '{"points": ["x", "y", "z"]}' if request.constraint else "more",
    ),
    Case("a digest", PIPELINE, "at most", documents=20),
    Case(
        "a digest whose items do not fit together",
        PIPELINE,
        "at most",
        documents=20,
        n_ctx_tokens=64,
        answer=always(" ".join(f"w{n}" for n in range(12))),
    ),
    Case(
        "a long text in parts",
        EACH + '      - {id: sum, uses: summarise, with: {text: "{{ steps.text.text }}"}}\n',
        documents=1,
        extra={"inbox/long.txt": LONG},
        n_ctx_tokens=256,
        answer=always("A note of five words."),
        are="at most",
    ),
    Case(
        "a long text in three parts, whose notes fit in any case",
        EACH + "      - id: sum\n        uses: summarise\n"
        '        with: {text: "{{ steps.text.text }}", params: {max_tokens: 10}}\n',
        "at most",  # an answer of ten tokens is asked for again
        documents=1,
        extra={"inbox/long.txt": LONG},
        n_ctx_tokens=256,
        answer=always("A note of five words."),
    ),
    Case(
        "long notes",
        EACH + '      - {id: sum, uses: summarise, with: {text: "{{ steps.text.text }}"}}\n',
        "at most",
        documents=1,
        extra={"inbox/long.txt": LONG * 3},
        n_ctx_tokens=256,
        answer=lambda request: " ".join(["note"] * 60),
    ),
    Case(
        "a prompt in parts",
        EACH + SUM.replace('}}"}}', '}}", on_overflow: map-reduce}}'),
        "at most",
        documents=1,
        extra={"inbox/long.txt": LONG},
        n_ctx_tokens=256,
    ),
    Case(
        "a summary that is refined",
        EACH + '      - {id: sum, uses: summarise, with: {text: "{{ steps.text.text }}", '
        "on_overflow: refine}}\n",
        documents=1,
        extra={"inbox/long.txt": LONG},
        n_ctx_tokens=256,
    ),
    Case(
        "chunks and vectors",
        EACH
        + '      - {id: parts, uses: split, with: {text: "{{ steps.text.text }}", tokens: 40}}\n'
        '      - {uses: embed, with: {chunks: "{{ steps.parts.chunks }}"}}\n',
        calls=4,
        extra={"inbox/long.txt": LONG},
    ),
    Case(
        "a file that is read first",
        "steps:\n  - {id: text, uses: files.read, with: {path: words.txt}}\n"
        '  - {id: a, uses: summarise, with: {text: "{{ steps.text.text }}"}}\n',
        calls=1,
        extra={"words.txt": "Some words."},
    ),
    Case(
        "no replies are taken from the ledger",
        EACH + SUM.replace("{id: sum, ", "{id: sum, cache: off, "),
        calls=3,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_run_makes_the_calls_that_its_plan_has_told(case: Case, tmp_path: Path) -> None:
    world = World(tmp_path, case.text)
    (tmp_path / "inbox").mkdir()
    world.documents(case.documents)
    for name, text in case.extra.items():
        world.write(name, text)

    def check() -> str:
        """Plan, run, and compare; returns what the plan has said of its number."""
        pool = FakePool(n_ctx_tokens=case.n_ctx_tokens, answer=case.answer)
        planned = plan(world.file, pool=pool, settings=settings(tmp_path))
        assert not pool.chats and not pool.embeds
        made = world.run(pool=FakePool(n_ctx_tokens=case.n_ctx_tokens, answer=case.answer)).calls
        if planned.calls is None:
            return "unknown"
        assert made == planned.calls if planned.calls_are == "exact" else made <= planned.calls
        return f"{planned.calls} {planned.calls_are}"

    first = check()
    assert first.endswith(case.are)
    if case.calls is not None:
        assert first == f"{case.calls} {case.are}"
    assert check() == case.again
    world.write("inbox/1.txt", "Something quite different.")
    check()
    if SUM_STEP in case.text:
        world.edit(SUM_STEP, "\n      - {uses: prompt, with: {template: x}}" + SUM_STEP)
        check()
    (tmp_path / "inbox/1.txt").unlink()
    (tmp_path / "inbox/new.txt").write_text("A third text.", "utf-8")
    check()


def test_a_plan_whose_time_is_over_bounds_what_is_left_or_estimates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddock.runner.dry_run import dry_walk

    world = World(tmp_path, EACH + SUM + WRITE, n_documents=4)
    monkeypatch.setattr(dry_walk, "MAX_WALK_S", 0.0)
    planned = world.plan()
    assert (planned.calls, planned.calls_are, planned.loads) == (4, "at most", 1)
    assert planned.least_calls == 0, "the ledger may know the answers"
    summarised = SUM.replace('chat, with: {prompt: "Sum up: ', 'summarise, with: {text: "')
    world.edit(SUM, summarised)
    assert world.plan().calls is None, "nobody knows how long the texts are"
    world.run()
    world.edit("with: {text", "with: {words: 9, text")
    planned = world.plan()
    assert (planned.calls, planned.calls_are) == (4, "about"), "as in the run before"


def test_items_that_a_plan_has_no_time_for_are_estimated_by_those_that_it_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddock.runner.dry_run import dry_walk

    summarised = SUM.replace('chat, with: {prompt: "Sum up: ', 'summarise, with: {text: "')
    world = World(tmp_path, EACH + summarised + WRITE, n_documents=40)
    walked: list[str] = []
    walk = dry_walk.DryWalk._in_time

    async def walk_ten(self: Any, block: Any, body: Any, key: str) -> Any:
        walked.append(key)
        return await walk(self, block, body, key) if len(walked) <= 10 else None

    monkeypatch.setattr(dry_walk.DryWalk, "_in_time", walk_ten)
    planned = world.plan()
    assert (planned.likely_calls, planned.calls_are, planned.loads) == (40, "about", 1)
    assert walked != sorted(walked), "not only those of the first folder"


EXAMPLES = (
    "ask", "ci-batch", "first-run", "folder-digest", "invoices", "labels", "minimal", "minutes",
    "pictures", "translate-folder", "watched-inbox",
)  # fmt: skip
"""Those that run without tools and commands."""


def in_form(request: ChatRequest) -> str:
    """Answer in the form that is asked for, with words of the prompt."""
    if request.constraint is None:
        return echo(request)
    return json.dumps(filled(json.loads(request.constraint.source), echo(request)))


def filled(schema: Any, text: str) -> Any:
    kinds = schema.get("type", "string")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return {name: filled(subschema, text) for name, subschema in schema["properties"].items()}
    if kind == "array":
        return [filled(schema["items"], text)] * schema.get("minItems", 1)
    return {"integer": 1, "number": 1.5, "boolean": True, "null": None}.get(kind, text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_make_the_calls_that_their_plans_tell(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(Path(__file__).parents[3] / "examples" / name, folder)
    for left in (".paddock", "out", "summaries"):
        shutil.rmtree(folder / left, ignore_errors=True)
    file = folder / "pipeline.yaml"

    def check() -> tuple[int, str, int]:
        planned = plan(file, pool=FakePool(answer=in_form), settings=settings(tmp_path))
        pool = FakePool(answer=in_form)
        made = run(
            file,
            options=RunOptions(local=True),
            environment=RunEnvironment(pool=pool, settings=settings(tmp_path)),
        ).calls
        if planned.calls is None:  # what reads a store, while that is filled, or a list yet to come
            assert name in ("ask", "first-run") and planned.notes
            return 0, "unknown", made
        assert made == planned.calls if planned.calls_are == "exact" else made <= planned.calls
        return planned.calls, planned.calls_are, made

    _, _, made = check()
    assert made > 0
    assert check()[2] == 0
