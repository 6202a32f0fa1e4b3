"""A plan tells how many calls the run will make, or at most how many; a digest costs one path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest, ToolCall
from paddock.runner.api import plan
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, each_document, settings

PIPELINE = each_document("""\
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - id: digest
    uses: reduce
    with: {over: "{{ steps.each.results }}", fanin: 4, prompt: "All: {{ notes | join(' ') }}"}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
returns: {text: steps.digest.text, levels: steps.digest.levels}
""")


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
    assert (report.status, report.calls) == ("completed", 0)
    assert not (tmp_path / "out").exists()


# --- a plan's number of calls against the run's, over many kinds of pipelines

EACH = each_document("")


def step(id_: str, uses: str, given: str, more: str = "") -> str:
    """Return a step with its parameters and other keys."""
    return f"      - {{id: {id_}, uses: {uses}, with: {{{given}}}{more}}}\n"


def chat(id_: str, prompt: str, more: str = "", *, given: str = "") -> str:
    return step(id_, "chat", f'prompt: "{prompt}"{given}', more)


def summed(more: str) -> str:
    return chat("sum", "Sum up: {{ steps.text.text }}", more)


SUM = summed("")
SUM_STEP = "\n      - {id: sum"
WRITE = step("page", "files.write", 'path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"')
SUMMARISED = step("sum", "summarise", 'text: "{{ steps.text.text }}"')
LONG = " ".join(f"Sentence {n} says something else about the harbour." for n in range(60))
LONG_FILE = {"inbox/long.txt": LONG}
EQUAL_FILES = {"inbox/x.txt": "The same.", "inbox/y.txt": "The same."}


@dataclass(frozen=True)
class Case:
    """A pipeline; `are` is what its first plan says of the number of calls."""

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


UNCACHED = SUM.replace("{id: sum, ", "{id: sum, cache: off, ")
IF_ONE = ", if: \"'1' in steps.sum.text\""
FORM = ", reply: {schema: {title: str, points: 'list[str]'}}"
ABOUT_TEXT = chat("t", "Of {{ steps.text.text }}")
BOSS = "models: {clerk: {ref: small}, boss: {ref: big, ctx: 8}}\n"
ESCALATED = BOSS + EACH + summed(", escalate: {to: boss, when: \"'no' in text\"}") + ABOUT_TEXT
IN_PIPELINE = step("p", "pipeline", 'file: inner.yaml, inputs: {text: "{{ steps.text.text }}"}')
INNER = """\
inputs: {text: {type: str}}
steps:
  - {id: a, uses: chat, with: {prompt: "{{ inputs.text }}"}}
  - {id: r, uses: files.read, with: {path: gone.txt}, needs: [a]}
"""
READS = """\
inputs: {text: {type: str}}
steps:
  - {id: r, uses: files.read, with: {path: "{{ inputs.text }}"}}
  - {id: a, uses: chat, with: {prompt: "{{ steps.r.text }}"}}
"""
WORDS = """\
      - id: words
        for_each: word in ['sum', 'up']
        KEY
        do: [{uses: chat, with: {prompt: "{{ word }} {{ doc.stem }}"}}]
"""
AREAS = """\
steps:
  - id: all
    for_each: area in ['north', 'south']
    key: area
    do:
      - {id: docs, uses: files.scan, with: {root: "areas/{{ area }}"}}
      - id: each
        for_each: doc in steps.docs.files
        do:
          - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
          - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}"}}
      - {id: one, uses: chat, with: {prompt: "{{ area }}: {{ steps.each.results }}"}}
"""
POINTS = """\
steps:
  - id: all
    for_each: word in ['a', 'b']
    do:
      - {id: l, uses: chat, with: {prompt: "{{ word }}"}, reply: {schema: {points: 'list[str]'}}}
      - id: each
        for_each: point in steps.l.output.points
        do: [{uses: chat, with: {prompt: "More of {{ point }}"}}]
"""

CASES = {
    "one prompt": Case("steps: [{id: a, uses: chat, with: {prompt: Hi}}]\n", calls=1),
    "a block": Case(EACH + SUM + WRITE, calls=3),
    "no documents": Case(EACH + SUM + WRITE, calls=0, documents=0),
    "two calls for each item, the second about the first": Case(
        EACH + SUM + chat("t", "In short: {{ steps.sum.text }}"),
        "at most",  # two documents may get the same answer
        6,
    ),
    "two calls for each item, both about the document": Case(
        EACH + SUM + chat("t", "{{ steps.text.text }} {{ steps.sum.text }}"), calls=6
    ),
    "a class first, which is the same for all": Case(
        EACH + SUM + chat("t", "About {{ steps.sum.text }}s"),
        "at most",
        6,
        answer=always("invoice"),
    ),
    "equal documents": Case(EACH + SUM, calls=3, documents=2, extra=EQUAL_FILES),
    "equal documents whose replies are not taken from the ledger": Case(
        EACH + UNCACHED, calls=4, documents=2, extra=EQUAL_FILES
    ),
    "a label first, by which equal prompts may be others": Case(
        EACH
        + summed(", reply: {schema: {kind: 'enum[bill, letter]'}}")
        + chat("t", "About {{ steps.sum.output.kind }}s"),
        "at most",
        8,
        documents=4,
        answer=lambda request: (
            '{"kind": "bill"}' if "1" in request.messages[-1].content else '{"kind": "letter"}'
        ),
    ),
    "an empty document": Case(EACH + SUM, calls=3, extra={"inbox/empty.txt": ""}),
    "a condition on the document": Case(EACH + summed(", if: \"'1' in steps.text.text\""), calls=1),
    "a condition on an answer": Case(
        EACH + SUM + chat("t", "Again: {{ steps.text.text }}", IF_ONE), "at most", 6
    ),
    "an answer by which a block chooses its items": Case(
        EACH + SUM + WORDS.replace("KEY", "where: word in steps.sum.text"), "at most", 9
    ),
    "what reads a step that an answer may skip": Case(
        EACH
        + SUM
        + chat("t", "Again: {{ steps.text.text }}", IF_ONE)
        + chat("u", "{{ steps.text.text }} {{ steps.t.text }}"),
        "at most",
        9,
    ),
    "checks that fail": Case(
        EACH + summed(", reply: {check: [\"'no' in text\"], repair: 2}"), "at most", 9
    ),
    "an answer in a form": Case(
        EACH + summed(FORM) + chat("t", "{{ steps.text.text }} {{ steps.sum.output.title }}"),
        calls=6,
        answer=always('{"title": "A", "points": []}'),
    ),
    "retries of refused answers": Case(
        EACH + summed(", reply: {check: [\"'no' in text\"]}, retry: {times: 2, on: [check]}"),
        "at most",
        18,
    ),
    "extracts, and what is asked about them": Case(
        EACH
        + SUMMARISED.replace(' }}"', ' }} We all went home.", how: extract, words: 8')
        + chat("t", "{{ steps.text.text }} {{ steps.sum.text }}"),
        calls=6,
    ),
    "an agent that uses all its turns": Case(
        "steps:\n"
        + step("a", "agent", "prompt: Count, tools: [now], max_turns: 2, memory: summary"),
        "at most",
        5,
        answer=lambda request: (
            "done" if request.tool_choice == "none" else [ToolCall("now", {}, "1")]
        ),
    ),
    "a chat that may ask for tools": Case(
        EACH + chat("sum", "{{ steps.text.text }}", given=", tools: [calculator]"), "at most", 3
    ),
    "tools that call no model": Case(
        "steps:\n"
        + step("t", "tool", "name: calculator, args: {expression: '2 + 2'}")
        + chat("a", "Say {{ steps.t.result }}"),
        "at most",
        1,
        again="1 at most",  # the tool may give something else
    ),
    "a block within a block": Case(
        AREAS,
        calls=5,
        extra={f"areas/{n}.txt": f"Text {n}." for n in ("north/1", "north/2", "south/3")},
    ),
    "a list that a model makes": Case(
        POINTS,
        "unknown",
        answer=lambda request: '{"points": ["x", "y", "z"]}' if request.constraint else "more",
    ),
    "a digest": Case(PIPELINE, "at most", documents=20),
    "a digest whose items do not fit together": Case(
        PIPELINE,
        "at most",
        documents=20,
        n_ctx_tokens=64,
        answer=always(" ".join(f"w{n}" for n in range(12))),
    ),
    "a long text in parts": Case(
        EACH + SUMMARISED,
        "at most",
        documents=1,
        extra=LONG_FILE,
        n_ctx_tokens=256,
        answer=always("A note of five words."),
    ),
    "a prompt in parts": Case(
        EACH + chat("sum", "Sum up: {{ steps.text.text }}", given=", on_overflow: map-reduce"),
        "at most",
        documents=1,
        extra=LONG_FILE,
        n_ctx_tokens=256,
    ),
    "a summary that is refined": Case(
        EACH + SUMMARISED.replace("}}\n", ", on_overflow: refine}}\n"),
        documents=1,
        extra=LONG_FILE,
        n_ctx_tokens=256,
    ),
    "chunks and vectors": Case(
        EACH
        + step("parts", "split", 'text: "{{ steps.text.text }}", tokens: 40')
        + step("vec", "embed", 'chunks: "{{ steps.parts.chunks }}"'),
        calls=4,
        extra=LONG_FILE,
    ),
    "a file that is read first": Case(
        "steps:\n" + step("text", "files.read", "path: words.txt") + SUMMARISED,
        calls=1,
        extra={"words.txt": "Some words."},
    ),
    "a larger model that is not asked, for which the prompt is too long": Case(
        ESCALATED, "at most", 6
    ),
    "a larger model that is asked, for which the prompt is too long": Case(
        ESCALATED, "at most", 6, answer=always("no")
    ),
    "such a step at the top": Case(
        BOSS + "steps:\n  - {id: a, uses: chat, with: {prompt: How are you}, "
        "escalate: {to: boss, when: \"'no' in text\"}}\n",
        calls=1,
    ),
    "a pipeline that fails after a call": Case(
        EACH + IN_PIPELINE + ABOUT_TEXT, calls=3, extra={"inner.yaml": INNER}
    ),
    "a step that would fail, and that an answer may skip": Case(
        BOSS
        + EACH
        + SUM
        + chat("r", "What is {{ steps.text.text }}", given=", model: boss")
        + chat("u", "{{ steps.r.text }}", IF_ONE)
        + ABOUT_TEXT,
        "at most",
        9,
        answer=always("no"),
    ),
    "a pipeline that reads what its item writes": Case(
        EACH
        + step("w", "files.write", 'path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"')
        + IN_PIPELINE.replace("{{ steps.text.text", "out/{{ doc.relpath").replace(
            "}}}\n", "}}, needs: [w]}\n"
        )
        + ABOUT_TEXT,
        "at most",
        6,
        extra={"inner.yaml": READS},
    ),
    "no replies are taken from the ledger": Case(EACH + UNCACHED, calls=3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_makes_the_calls_that_its_plan_has_told(case: Case, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    world = World(tmp_path, case.text, case.extra, n_documents=case.documents)

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


@pytest.mark.parametrize(
    "node",
    [
        "for_each: 'w in [steps.a.text]', if: 'false', do: [{uses: chat, with: {prompt: Of}}]",
        "uses: pipeline, if: 'false', with: {file: i.yaml, inputs: {text: '{{ steps.a.text }}'}}",
    ],
    ids=["block", "pipeline"],
)
def test_what_is_surely_skipped_behind_unknown_answers_makes_no_calls(
    node: str, tmp_path: Path
) -> None:
    text = f"""\
steps:
  - {{id: a, uses: chat, with: {{prompt: Hi}}}}
  - {{id: b, {node}}}
returns: steps.a.text
"""
    world = World(tmp_path, text, {"i.yaml": INNER})
    assert (world.plan().calls, world.run().calls) == (1, 1)


def test_a_plan_whose_time_is_over_bounds_what_is_left_or_estimates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddock.runner.dry_run import forecast

    world = World(tmp_path, EACH + SUM + WRITE, n_documents=4)
    monkeypatch.setattr(forecast, "MAX_WALK_S", 0.0)
    planned = world.plan()
    assert (planned.calls, planned.calls_are, planned.loads) == (4, "at most", 1)
    assert planned.least_calls == 0, "the ledger may know the answers"
    world.edit(SUM, SUMMARISED)
    assert world.plan().calls is None, "nobody knows how long the texts are"
    world.run()
    world.edit("with: {text", "with: {words: 9, text")
    planned = world.plan()
    assert (planned.calls, planned.calls_are) == (4, "about"), "as in the run before"
