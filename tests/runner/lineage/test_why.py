"""Where an output came from, and what changed since: asked as `paddock why` asks."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from paddock.engine.errors import ModelNotFound
from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec, Reply
from paddock.engine.system.records import replace
from paddock.runner.cli.history_text import lineage_text
from paddock.runner.core.traces.parts import RULE_PARTS, RulePart, StepRule, part_digest
from paddock.runner.lineage.explain import explain_path
from paddock.runner.lineage.path_lineage import Origin, PathLineage
from paddock.runner.progress.reasons import Why
from tests.fakes.pool import FakePool
from tests.fakes.readers import has_readers
from tests.runner.cli.commands.shell import invoke
from tests.runner.core.test_filed_documents import FILING
from tests.runner.world import SUMMARIES, World, each_document, reasons, settings


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look up the models that the runs of these tests had."""
    monkeypatch.setattr(
        "paddock.runner.core.calls.model_pools.LookupPool", lambda settings: FakePool()
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    files = {"inbox/a.txt": "The ferry leaves at nine.", "inbox/b.txt": "The pier is closed."}
    world = World(tmp_path / "letters", beside=files)
    world.run()
    monkeypatch.chdir(world.folder)
    return world


def origin_of(path: str) -> Origin:
    (origin,) = explain_path(Path(path)).origins
    return origin


def changes(path: str) -> list[str]:
    return [change.what for change in origin_of(path).changes]


def uses_of(document: str) -> tuple[str, ...]:
    return tuple(map(str, explain_path(Path(document)).read_by))


def test_an_output_leads_to_its_document_its_prompt_and_its_raw_reply(world: World) -> None:
    origin = origin_of("out/a.txt")
    assert (origin.step, origin.key, origin.state) == ("each", "a.txt", "done")
    assert (origin.path, origin.condition) == (str(world.folder / "out/a.txt"), "same")
    assert origin.source is not None
    assert (origin.source.path, origin.source.state) == (str(world.folder / "inbox/a.txt"), "same")
    steps = {step.id: step for step in origin.steps}
    (call,) = steps["sum"].calls
    assert call.request["messages"] == [["user", "Sum up: The ferry leaves at nine. (plain)"]]
    assert call.reply == world.output("a.txt")
    assert (call.kind, call.model, call.is_known, call.run) == (
        "chat", "smollm2:135m", False, origin.run,
    )  # fmt: skip
    assert steps["sum"].uses == "chat"
    assert [step.id for step in origin.steps] == ["text", "sum", "(files.write)"]


def test_a_file_that_a_step_only_writes_down_leads_to_what_the_model_said(world: World) -> None:
    origin = origin_of("out/DIGEST.md")
    assert (origin.step, origin.key, origin.made_of) == ("report", "report", ("digest",))
    (call,) = next(step for step in origin.steps if step.id == "digest").calls
    assert call.reply == world.output("DIGEST.md")


def test_a_known_reply_is_told_as_known_with_the_run_that_asked(world: World) -> None:
    first = origin_of("out/a.txt").run
    (world.folder / "out/a.txt").unlink()
    world.run()
    origin = origin_of("out/a.txt")
    (call,) = origin.steps[1].calls
    assert (call.is_known, origin.run != first) == (True, True)


def test_each_thing_that_changed_since_is_told(world: World) -> None:
    world.write("inbox/a.txt", "The ferry leaves at ten.")
    world.write("out/a.txt", "Mine.")
    origin = origin_of("out/a.txt")
    assert origin.condition == "edited"
    assert changes("out/a.txt")[0] == "its document has changed: inbox/a.txt"
    (world.folder / "inbox/a.txt").unlink()
    (world.folder / "out/a.txt").unlink()
    assert origin_of("out/a.txt").condition == "missing"
    assert changes("out/a.txt")[0] == "its document was deleted: inbox/a.txt"
    (world.folder / "inbox/a.txt").mkdir()  # there, and it cannot be read
    assert changes("out/a.txt")[0] == "its document has changed: inbox/a.txt"


def test_changed_words_are_told_as_a_plan_tells_them_with_their_difference(world: World) -> None:
    assert origin_of("out/a.txt").changes == ()
    world.edit("Sum up:", "In one line:")
    world.edit("default: plain", "default: merry")
    origin = origin_of("out/a.txt")
    assert [change.what for change in origin.changes] == [
        "prompt changed (step 'sum')", "value changed: inputs.tone",
    ]  # fmt: skip
    assert origin.changes[0].detail == (
        "-sum.prompt: Sum up: {{ steps.text.text }} ({{ inputs.tone }})",
        "+sum.prompt: In one line: {{ steps.text.text }} ({{ inputs.tone }})",
    )
    assert "prompt changed (step 'sum')" in str(world.plan().items[0].why)


def test_what_a_run_was_given_is_no_change(world: World) -> None:
    world.run({"tone": "merry"})
    assert origin_of("out/a.txt").changes == ()


TEMPLATED = each_document("""\
      - {id: sum, uses: chat, with: {prompt: {file: prompt.md}}}
      - {uses: files.write, with: {path: "out/{{ doc.stem }}.txt", text: "{{ steps.sum.text }}"}}
""")


PARTED = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: style, uses: files.read, with: {path: style.md}}
      - {id: p, uses: pipeline, with: {file: part.yaml, inputs: {text: "{{ steps.style.text }}"}}}
      - {id: sum, uses: chat, with: {prompt: "{{ doc.name }}"}, reply: {schema: {file: form.json}}}
      - {uses: files.write, with: {path: "out/{{ doc.name }}", text: "{{ steps.p.result }}"}}
"""
PART = """\
inputs: {text: {type: str}}
steps:
  - {id: a, uses: chat, with: {prompt: {file: part.md}}}
returns: steps.a.text"""
PARTS = {"style.md": "Plain.", "part.md": "Sum up: {{ inputs.text }}", "part.yaml": PART}
FORM = '{"type": "object", "properties": {"a": {"type": "string"}}}'


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("form.json", '{"type": "object"}', "schema changed (step 'sum')"),
        ("style.md", "Fancy.", "a file that it read has changed: style.md"),
        ("part.md", "Short: {{ inputs.text }}", "prompt changed (step 'p.a')"),
        ("part.yaml", f"{PART} + 'x'", "parameters changed (step 'p.(returns)')"),
    ],
)
def test_each_file_that_a_rule_is_made_of_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, why: str
) -> None:
    world = World(tmp_path, PARTED, PARTS | {"form.json": FORM}, n_documents=1)
    world.run(pool=FakePool(answer=lambda request: '{"a": "x"}'))
    monkeypatch.chdir(tmp_path)
    assert changes("out/0.txt") == []
    world.write(file, text)
    assert changes("out/0.txt") == [why]


def other_model(monkeypatch: pytest.MonkeyPatch) -> FakePool:
    async def other_facts(pool: FakePool, model: ModelSpec) -> ModelFacts:
        return replace(await FakePool.facts(pool, model), digest="e" * 64)

    pool = FakePool(answer=lambda request: LETTER)
    monkeypatch.setattr(pool, "facts", partial(other_facts, pool))
    monkeypatch.setattr("paddock.runner.core.calls.model_pools.LookupPool", lambda _: pool)
    return pool


class SeasonPart(RulePart, frozen=True):
    """A reason to be stale that a developer adds: one class."""

    what, why = "season", Why.TOOLS
    season: ClassVar[str] = "spring"

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        return part_digest(cls.season) if rule.step.uses == "chat" else None


LETTER = '{"kind": "letter"}'
RULED = each_document("""\
      - id: sum
        uses: chat
        with: {prompt: "What is this? {{ steps.text.text }}", params: {max_tokens: 9}}
        reply: {schema: {kind: str}, check: ["words(text, most=99)"]}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.csv", rows: "{{ [steps.sum.output] }}"}
""")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("What is", "Which kind is"), "prompt changed (step 'sum')"),
        (("max_tokens: 9", "max_tokens: 8"), "`params` changed (step 'sum')"),
        (("kind: str", 'kind: "enum[letter, bill]"'), "schema changed (step 'sum')"),
        (("most=99", "most=98"), "checks changed (step 'sum')"),
        ((", check", ", confidence: true, check"), "`confidence` changed (step 'sum')"),
        ((", check", ", evidence: steps.text.text, check"), "evidence changed (step 'sum')"),
        (
            ("        reply", "        review: {when: false}\n        reply"),
            "`review.when` changed (step 'sum')",
        ),
        (("steps:", "models: {m: {ref: smollm2:135m, ctx: 1k}}\nsteps:"), ""),
        ("model", "model changed (step 'sum')"),
        ("version", "step version changed (step 'sum')"),
        ("readers", "what reads documents here changed (step 'text')"),
        ("season", "its tools changed (step 'sum')"),
    ],
)
def test_each_part_of_a_rule_is_told_alike_by_plan_run_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str | tuple[str, str], why: str
) -> None:
    has_readers(monkeypatch, "odd 1")
    monkeypatch.setitem(RULE_PARTS, "season", SeasonPart)
    pool = FakePool(answer=lambda request: LETTER)
    world = World(tmp_path, RULED, n_documents=1)
    assert world.run(pool=pool).status == "completed"
    monkeypatch.chdir(tmp_path)
    assert changes("out/0.csv") == []
    if isinstance(change, tuple):
        world.edit(*change)
    elif change == "model":
        pool = other_model(monkeypatch)
    elif change == "version":
        monkeypatch.setattr("paddock.steps.llm.chat.Chat.version", 99)
    elif change == "season":
        monkeypatch.setattr(SeasonPart, "season", "summer")
    else:
        has_readers(monkeypatch, "odd 2")
    told = changes("out/0.csv")
    of_plan = [*filter(None, reasons(world.plan(pool=pool)).values())]
    of_run = [*filter(None, reasons(world.run(pool=pool)).values())]
    assert told == of_plan == of_run
    assert why in "".join(told)
    assert changes("out/0.csv") == []


def test_newer_results_of_what_it_reads_are_told(world: World) -> None:
    world.write("inbox/a.txt", "The ferry leaves at ten.")
    world.write("inbox/b.txt", "The pier is open.")
    world.run(only=["a.txt"])
    assert "'each', which it reads, has a newer result" in changes("out/DIGEST.md")


RUNS_PARTS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: p, uses: pipeline, with: {file: part.yaml, inputs: {text: "{{ doc.name }}"}}}
      - {uses: files.write, with: {path: "out/{{ doc.name }}", text: "{{ steps.p.result }}"}}
  - {id: q, uses: pipeline, with: {file: part.yaml, inputs: {text: all}}}
  - {uses: files.write, with: {path: ALL.md, text: "{{ steps.q.result }}"}}
"""


def test_calls_of_a_pipeline_that_a_step_runs_are_those_of_what_is_made_of_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, RUNS_PARTS, PARTS, n_documents=2)
    world.run(pool=FakePool(answer=lambda request: request.messages[-1].content.upper()))
    monkeypatch.chdir(tmp_path)
    for path, step, answer in (
        ("out/0.txt", "p.a", "SUM UP: 0.TXT"),
        ("out/1.txt", "p.a", "SUM UP: 1.TXT"),
        ("ALL.md", "q.a", "SUM UP: ALL"),
    ):
        steps = origin_of(path).steps
        assert [(s.id, call.reply) for s in steps for call in s.calls] == [(step, answer)]
    assert "from step '(files.write)#2' of pipeline.yaml" in shown_lines("ALL.md")


def test_a_step_of_a_pipeline_that_an_item_runs_is_named_with_that_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = "{uses: files.write, with: {path: '{{ inputs.text }}.md', text: '{{ steps.a.text }}'}}"
    part = PART.replace("returns:", f"  - {writes}\nreturns:")
    world = World(tmp_path, RUNS_PARTS, PARTS | {"part.yaml": part}, n_documents=1)
    assert world.run().status == "completed"
    monkeypatch.chdir(tmp_path)
    name = "step 'p.(files.write)' for item '0.txt'"
    assert f"from {name} of pipeline.yaml" in shown_lines("0.txt.md")
    assert "from step 'q.(files.write)' of pipeline.yaml" in shown_lines("all.md")


def shown_lines(path: str) -> list[str]:
    return [" ".join(line.split()) for line in invoke("why", path).stdout.splitlines()]


def test_a_pipeline_that_is_gone_broken_or_without_the_step_is_told(world: World) -> None:
    world.edit("id: each", "id: every")
    world.edit("steps.each", "steps.every")
    assert changes("out/a.txt") == ["the pipeline no longer has 'each'"]
    world.file.write_text("steps: [")
    assert changes("out/a.txt")[0].startswith("the current pipeline is invalid: ")
    world.file.unlink()
    assert changes("out/a.txt") == ["the pipeline was deleted: pipeline.yaml"]


def test_a_difference_of_a_step_is_told_with_the_reason_that_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, LABELLED, n_documents=1)
    world.run(pool=FakePool(answer=lambda request: '{"tag": "a"}'))
    monkeypatch.chdir(tmp_path)
    world.edit("[a, b]", "[b, c]")
    world.edit("prompt: Which", "prompt: What")
    world.edit('"Own ', '"Other ')
    found = {change.what: change.detail for change in origin_of("out/0.txt").changes}
    assert found == {
        "its label is gone: 'a' (step 'label')": (),
        "prompt changed (step 'label')": ("-label.prompt: Which", "+label.prompt: What"),
        "`text` changed (step '(files.write)')": (
            "-(files.write).text: Own {{ steps.label.output.tag }}",
            "+(files.write).text: Other {{ steps.label.output.tag }}",
        ),
    }
    world.edit("prompt: What", "prompt: Which")
    world.edit('"Other ', '"Own ')
    world.edit("[b, c]", "[a, b]")
    world.edit("returns: doc.name", "returns: doc.path")
    (change,) = origin_of("out/0.txt").changes
    assert change.what == "`returns` changed (step 'each')"
    assert change.detail == ("-each.returns: doc.name", "+each.returns: doc.path")


LABELLED = """\
inputs: {tags: {type: list, default: [a, b]}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: label
        uses: chat
        with: {prompt: Which}
        reply: {schema: {tag: {choose: inputs.tags}}}
      - uses: files.write
        with: {path: "out/{{ doc.name }}", text: "Own {{ steps.label.output.tag }}"}
    returns: doc.name
"""


def test_what_a_pipeline_is_given_of_a_secret_is_not_known_to_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "{file: part.yaml, inputs: {tone: 'x{{ inputs.word }}'}}"
    secret = "word: {type: str, secret: true, default: none}"
    outer = f"inputs: {{{secret}}}\nsteps: [{{id: p, uses: pipeline, with: {given}}}]"
    world = World(tmp_path, outer, {"part.yaml": SUMMARIES}, n_documents=1)
    monkeypatch.chdir(tmp_path)
    assert world.run({"word": "abracadabra"}).status == "completed"
    assert changes("out/0.txt") == []
    world.write("part.yaml", SUMMARIES.replace("Sum up", "Short"))
    assert changes("out/0.txt") == ["prompt changed (step 'sum')"]


def test_a_document_tells_what_pipelines_made_of_it_that_its_item_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = "{uses: files.write, with: {path: '{{ inputs.text }}.md', text: '{{ steps.a.text }}'}}"
    part = PART.replace("returns:", f"  - {writes}\nreturns:")
    World(tmp_path, RUNS_PARTS, PARTS | {"part.yaml": part}, n_documents=1).run()
    monkeypatch.chdir(tmp_path)
    assert uses_of("inbox/0.txt") == ("item '0.txt' of 'each' → out/0.txt, 0.txt.md",)


def test_a_folder_of_documents_tells_what_was_made_of_each(world: World) -> None:
    assert uses_of("inbox") == (
        "item 'a.txt' of 'each' → out/a.txt", "item 'b.txt' of 'each' → out/b.txt",
    )  # fmt: skip
    for number in range(22):
        world.write(f"inbox/more/{number:02}.txt", "More.")
    world.run()
    lines = invoke("why", "inbox/").stdout.splitlines()
    assert (lines[0], lines[-1]) == ("inbox was read for these outputs:", "  and 4 more")
    assert len(lines) == 22
    assert not explain_path(Path("inbo")).is_known


def test_a_document_of_which_nothing_could_be_made_tells_why(world: World) -> None:
    world.write("inbox/broken.pdf", "no PDF")
    world.run()
    assert uses_of("inbox/broken.pdf") == (
        "item 'broken.pdf' of 'each', quarantined: step 'text': "
        "'broken.pdf' is damaged or not a PDF.",
    )


def test_a_folder_tells_of_each_of_its_files(world: World) -> None:
    answer = explain_path(Path("out"))
    assert [Path(o.path).name for o in answer.origins] == ["DIGEST.md", "a.txt", "b.txt"]
    assert lineage_text(answer, is_full=False).splitlines()[0] == "out/DIGEST.md"


def test_settings_that_cannot_be_used_are_told_and_other_ledgers_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "b", n_documents=1)
    world.run()
    broken = World(tmp_path / "a", n_documents=1)
    broken.run()
    broken.write("paddock.toml", "nonsense = 1\n")
    monkeypatch.chdir(tmp_path)
    answer = explain_path(Path("b/out/0.txt"), [broken.file, world.file])
    assert [Path(origin.path).name for origin in answer.origins] == ["0.txt"]
    assert answer.faults == explain_path(Path("a/out/0.txt")).faults
    answer = explain_path(Path("a/out/0.txt"))
    assert not answer.is_known
    (fault,) = answer.faults
    assert "paddock.toml" in fault
    assert "nonsense" in fault


def test_an_item_within_an_item_is_told_with_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, NESTED, n_documents=1)
    world.run()
    monkeypatch.chdir(tmp_path)
    origin = origin_of("out/0-fr.txt")
    assert (origin.step, origin.key) == ("langs", "0.txt/fr")
    assert [step.id for step in origin.steps if step.calls] == ["tr"]


NESTED = """\
name: nested
""" + each_document("""\
      - id: langs
        for_each: lang in ["fr", "de"]
        key: lang
        do:
          - {id: tr, uses: chat, with: {prompt: "{{ lang }}: {{ steps.text.text }}"}}
          - uses: files.write
            with: {path: "out/{{ doc.stem }}-{{ lang }}.txt", text: "{{ steps.tr.text }}"}
""")


def test_a_secret_that_a_model_was_told_is_in_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, n_documents=1)
    world.edit("  tone:", "  word: {type: str, secret: true, default: none}\n  tone:")
    world.edit("({{ inputs.tone }})", "({{ inputs.word }})")
    world.run({"word": "abracadabra"}, pool=FakePool())
    monkeypatch.chdir(tmp_path)
    text = json.dumps(explain_path(Path("out/0.txt")).as_json())
    assert "abracadabra" not in text
    assert "Sum up" in text
    assert changes("out/0.txt") == []  # what it was is not known, so nothing is claimed of it


def test_a_file_that_no_one_wrote_is_told_with_its_neighbours(world: World) -> None:
    result = invoke("why", "out/aa.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "'out/aa.txt': there is no such file, and no pipeline here has written one of this name.\n"
        "  Did you mean 'out/a.txt', 'out/b.txt'?\n"
    )
    world.write("notes.md", "By hand.")
    result = invoke("why", "notes.md")
    assert result.stderr == (
        "'notes.md': no pipeline here has written it or read it.\n"
        "  Name a pipeline that may have, or its folder: `paddock why notes.md FOLDER`.\n"
    )


def test_an_output_that_was_renamed_is_known_by_what_it_holds(world: World) -> None:
    (world.folder / "out/a.txt").rename(world.folder / "best.txt")
    result = invoke("why", "best.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "'best.txt': no pipeline here has written it or read it.\n"
        "  It has the content that was written as 'out/a.txt': `paddock why out/a.txt`.\n"
    )


def test_a_folder_of_filed_documents_tells_what_was_made_of_them(tmp_path: Path) -> None:
    world = World(tmp_path, FILING)
    world.write("inbox/a.txt", "Letter a")
    world.run()
    answer = explain_path(tmp_path / "filed")
    assert answer.origins == ()
    assert answer.read_by == explain_path(tmp_path / "filed/a.txt").read_by
    (use,) = answer.read_by
    assert "item 'a.txt'" in use


def test_what_a_killed_run_had_written_but_not_recorded_is_told(world: World) -> None:
    digest = hashlib.sha256(world.output("a.txt").encode()).hexdigest()
    with closing(sqlite3.connect(world.folder / ".paddock/ledger.sqlite")) as ledger, ledger:
        changed = ledger.execute(
            "update outputs set sha256 = null, mtime_ns = 0, intended = ? where path = 'out/a.txt'",
            [f'["{digest}"]'],
        )
        assert changed.rowcount == 1
    result = invoke("why", "out/a.txt")
    assert result.exit_code == 0, result.output
    assert "killed before it could record it" in " ".join(result.stdout.split())


def test_the_command_tells_the_whole_in_lines(world: World) -> None:
    world.edit("Sum up:", "In one line:")
    result = invoke("why", "out/a.txt")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0:2] == ["out/a.txt", "from item 'a.txt' of 'each' of pipeline.yaml"]
    assert "document inbox/a.txt, unchanged" in lines
    assert "asked [user] Sum up: The ferry leaves at nine. (plain)" in lines
    assert f"answered {' '.join(world.output('a.txt').split())}" in lines
    assert lines[-3] == "since prompt changed (step 'sum')"
    explanation = json.loads(invoke("why", "out/a.txt", "--json").stdout)
    assert explanation["known"] is True
    assert explanation["origins"][0]["steps"][1]["calls"][0]["reply"] == world.output("a.txt")


def test_what_a_reply_smuggles_in_does_nothing_to_a_terminal(world: World) -> None:
    world.write("inbox/c.txt", "A third.")
    world.run(pool=FakePool(answer=lambda request: "\x1b[2J\u202eevil\nline"))
    text = lineage_text(explain_path(Path("out/c.txt")), is_full=True)
    assert "\x1b" not in text
    assert "\u202e" not in text


def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> World:
    world = World(tmp_path, text, n_documents=2)
    monkeypatch.chdir(tmp_path)
    return world


INDEXED = """\
name: indexed
""" + each_document("""\
      - {uses: embed, with: {texts: ["{{ steps.text.text }}"], store: index.lance}}
  - {id: found, needs: [each], uses: search, with: {store: index.lance, query: ferry}}
  - {id: report, uses: files.write, with: {path: FOUND.md, text: "Found: {{ steps.found.hits }}"}}
  - id: answers
    needs: [each]
    for_each: word in ["pier"]
    key: word
    do:
      - {id: hits, uses: search, with: {store: index.lance, query: "{{ word }}"}}
      - {uses: files.write, with: {path: "out/{{ word }}.txt", text: "- {{ steps.hits.hits }}"}}
""")


def test_a_store_that_was_searched_and_holds_something_else_now_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = in_a_folder(tmp_path, monkeypatch, INDEXED)
    world.run()
    for path in ("out/pier.txt", "FOUND.md", "index.lance"):
        assert [
            change for origin in explain_path(Path(path)).origins for change in origin.changes
        ] == []
    import lancedb

    lancedb.connect(tmp_path / "index.lance").open_table("rows").delete("item = '1.txt'")
    behind = "'each', which comes before it, is not up to date: 1.txt (stale)"
    assert changes("out/pier.txt") == [
        "a store that it searched has other content now: index.lance",
        "'each', which comes before it, is not up to date: 1.txt (stale)",
    ]
    assert changes("FOUND.md") == [
        "a store that 'found' searched has other content now: index.lance", behind,
    ]  # fmt: skip
    mine, others = explain_path(Path("index.lance")).origins
    assert mine.changes == ()
    assert [change.what for change in others.changes] == [
        "a store that it kept rows in no longer has all of them unchanged: index.lance"
    ]
    assert explain_path(Path("index.lance/rows.lance/data")).origins == (mine, others)
    assert explain_path(Path("index.lance/never")).origins == (mine, others)
    assert uses_of("inbox/1.txt") == ("item '1.txt' of 'each' → rows in index.lance",)
    text = world.file.read_text()
    world.file.unlink()  # what it read is compared all the same
    searched = "a store that it searched has other content now: index.lance"
    assert changes("out/pier.txt") == ["the pipeline was deleted: pipeline.yaml", searched]
    world.file.write_text(text)
    shutil.rmtree(tmp_path / "index.lance")
    assert changes("out/pier.txt")[0] == "a store that it searched was deleted: index.lance"
    assert "a store that it kept rows in was deleted: index.lance" in {
        change.what
        for origin in explain_path(Path("index.lance")).origins
        for change in origin.changes
    }


LISTED = """\
name: listed
steps:
  - id: each
    for_each: name in ["inbox"]
    key: name
    do:
      - {id: docs, uses: files.scan, with: {root: "{{ name }}", include: ["*.txt"]}}
      - {uses: files.write, with: {path: "inbox/list.txt", text: "Has: {{ steps.docs.files }}"}}
"""


def test_a_folder_that_was_listed_and_holds_something_else_now_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = in_a_folder(tmp_path, monkeypatch, LISTED)
    world.run()
    assert changes("inbox/list.txt") == []  # its own outputs are in no listing
    assert origin_of("inbox/list.txt").looked_in == (str(tmp_path / "inbox"),)
    world.write("inbox/notes.md", "Not asked for.")
    assert changes("inbox/list.txt") == []
    world.write("inbox/2.txt", "A third.")
    expected = ["a folder that it listed has other content now: inbox"]
    assert changes("inbox/list.txt") == expected
    shutil.rmtree(tmp_path / "inbox")
    assert changes("inbox/list.txt") == ["a folder that it listed was deleted: inbox"]


def test_what_is_made_of_a_block_tells_which_of_its_documents_are_others_now(world: World) -> None:
    assert changes("out/DIGEST.md") == []
    world.write("inbox/a.txt", "The ferry leaves at ten.")
    world.write("inbox/c.txt", "A third.")
    (world.folder / "inbox/b.txt").unlink()
    assert changes("out/DIGEST.md") == [
        "'each', which comes before it, is not up to date: "
        "a.txt (changed), c.txt (new), b.txt (deleted)"
    ]
    world.edit("Sum up:", "In one line:")
    for number in range(6):
        world.write(f"inbox/d{number}.txt", "One more.")
    assert changes("out/DIGEST.md") == [
        "'each', which comes before it, is not up to date: "
        "a.txt (changed), c.txt (new), d0.txt (new) and 6 more"
    ]
    world.run()
    assert changes("out/DIGEST.md") == []


def test_what_cannot_be_looked_at_any_more_is_not_claimed_to_be_as_it_was(world: World) -> None:
    (world.folder / "inbox").rename(world.folder / "elsewhere")
    assert changes("out/DIGEST.md") == [
        f"the steps before it cannot be checked: step 'docs': the folder '{world.folder}/inbox' "
        f"does not exist. Correct `root`, or create the folder."
    ]


def test_what_is_not_looked_at_is_not_claimed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, n_documents=1)
    world.edit("  tone:", "  word: {type: str, secret: true, default: none}\n  tone:")
    world.run({"word": "abracadabra"})
    monkeypatch.chdir(tmp_path)
    assert origin_of("out/0.txt").notes == ()
    world.write("inbox/1.txt", "New.")
    lines = invoke("why", "out/DIGEST.md").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines][-2:] == [
        "note whether the steps before it are up to date is not checked",
        "since nothing that was compared has changed",
    ]


def test_what_a_tool_looked_at_is_not_claimed_to_be_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = "{id: style, uses: tool, with: {name: files.search, options: {root: inbox}}}"
    world = World(tmp_path, n_documents=1)
    world.edit("      - {id: sum,", f"      - {tool}\n      - {{id: sum,")
    world.run()
    monkeypatch.chdir(tmp_path)
    assert origin_of("out/0.txt").notes == ("what 'files.search' read then is not checked",)
    lines = invoke("why", "out/0.txt").stdout.splitlines()
    assert lines[-1].endswith("nothing that was compared has changed")


def test_models_on_other_servers_are_not_asked_about_the_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_POOL", "http://127.0.0.1:9")
    monkeypatch.setattr("tests.fakes.pool.FakePool.facts", never_asked)
    origin = origin_of("out/a.txt")
    note = "its models are on other servers: whether they changed is not checked"
    assert (origin.changes, origin.notes) == ((), (note,))
    world.edit("Sum up:", "In one line:")
    assert changes("out/a.txt") == ["prompt changed (step 'sum')"]


async def never_asked(pool: object, model: ModelSpec) -> ModelFacts:
    raise AssertionError(model)


def test_nothing_is_written_by_asking(world: World) -> None:
    file = world.folder / ".paddock/ledger.sqlite"
    before = file.read_bytes()
    explain_path(Path("out/a.txt"))
    assert file.read_bytes() == before
    assert explain_path(Path("/etc/hostname"), [world.file]) == PathLineage("/etc/hostname")


def test_a_ledger_that_machines_share_answers_the_same(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_LEDGER", url)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    world = World(tmp_path / "shared", beside={"a_é.md": "Plain."}, n_documents=2)
    style = "{id: style, uses: files.read, with: {path: a_é.md}}"
    world.edit("      - {id: sum,", f"      - {style}\n      - {{id: sum,")
    shared = replace(settings(world.folder), ledger_url=url)
    world.run(settings=shared)
    monkeypatch.chdir(world.folder)
    assert [step.id for step in origin_of("out/0.txt").steps if step.calls] == ["sum"]
    assert origin_of("out/DIGEST.md").changes == ()
    assert len(explain_path(Path("out")).origins) == 3
    assert uses_of("inbox/1.txt") == ("item '1.txt' of 'each' → out/1.txt",)
    assert explain_path(Path("out/9.txt")).near[0].endswith("out/1.txt")
    assert len(explain_path(Path("inbox")).read_by) == 2
    assert (len(uses_of("a_é.md")), uses_of("A_É.md")) == (2, ())
    (world.folder / "out/1.txt").rename(world.folder / "mine.txt")
    assert explain_path(Path("mine.txt")).same_as == (str(world.folder / "out/1.txt"),)


def test_answers_that_are_not_whole_are_said_of_calls_that_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    world = World(tmp_path / "cut")
    limited = "with: {on_truncated: continue, params: {max_tokens: 3}, prompt"
    world.edit("with: {prompt", limited)
    world.write("inbox/a.txt", "The ferry leaves at nine.")
    whole = "one two three four five six seven"

    def going_on(request: ChatRequest) -> str:
        last = request.messages[-1]
        return whole.removeprefix(last.content) if last.role == "assistant" else whole

    world.run(pool=FakePool(answer=going_on))
    monkeypatch.chdir(world.folder)
    text = lineage_text(explain_path(Path("out/a.txt")), is_full=False)
    assert "ended at its limit of tokens" in text
    assert "and 2 more, 1 of them not whole; --full shows all" in text


TABLES = """\
steps:
  - {id: table, uses: files.rows, with: {path: rows.csv}}
  - {id: word, uses: prompt, with: {template: Hello}}
  - id: each
    for_each: row in steps.table.rows
    key: row.id
    do:
      - {id: say, uses: prompt, with: {template: "{{ row.text }}"}}
      - {uses: files.write, with: {path: "out/{{ row.id }}", text: "{{ steps.say.text }}"}}
"""


@pytest.mark.parametrize(
    ("template", "name", "old", "new", "why"),
    [
        ("{{ row.text }}", "rows.csv", "ferry", "pier", "content changed"),
        ("{{ steps.word.text }}", "pipeline.yaml", "Hello", "Hi", "value changed: steps.word.text"),
        ("{{ loop.length }}", "rows.csv", "b,", "c,boat\nb,", "its place in the list changed"),
    ],
    ids=["row", "step", "place"],
)
def test_what_other_steps_give_an_item_now_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, name: str, old: str, new: str,
    why: str,
) -> None:  # fmt: skip
    text = TABLES.replace("{{ row.text }}", template)
    world = World(tmp_path, text, {"rows.csv": "id,text\na,ferry\nb,boat\n"})
    world.run()
    monkeypatch.chdir(tmp_path)
    assert changes("out/a") == []
    world.write(name, (tmp_path / name).read_text().replace(old, new))
    assert changes("out/a") == [why]
    assert {item.why for item in world.plan().items if item.key == "a"} == {why}


async def unusable(pool: object, model: ModelSpec) -> ModelFacts:
    raise ModelNotFound("m", ())


def test_what_else_changed_is_told_where_a_model_cannot_be_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.pool.FakePool.facts", unusable)
    gone = (
        "a model is no longer usable: model 'm' is not on this machine. Known: none. "
        "Bring it with `paddock pull m`, or name the path of a GGUF file."
    )
    assert changes("out/a.txt") == [gone]
    world.edit("Sum up:", "In one line:")
    assert changes("out/a.txt") == [gone, "prompt changed (step 'sum')"]


def test_a_machine_that_lacks_a_reader_leaves_what_another_read_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, TEMPLATED, {"prompt.md": "Sum up: {{ steps.text.text }}"}, 1)
    all_ = ("formats", "ocr", "srt 1")
    for readers, state in (
        (all_, "new"),
        (("formats",), "fresh"),
        ((), "fresh"),
        (("ocr", "srt 2"), "fresh"),
        ((*all_, "pdf 9"), "fresh"),
        (("formats", "ocr", "srt 2"), "stale"),  # none is missing, and one reads otherwise
    ):
        has_readers(monkeypatch, *readers)
        assert world.run().counts[state] == 1, readers


class SlowOnOne(FakePool):
    """Answers about the first word once it has answered about the others."""

    n_answered = 0

    async def answer_to(self, request: ChatRequest) -> Reply:
        while "word one" in request.messages[-1].content and self.n_answered < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        reply = await super().answer_to(request)
        self.n_answered += 1
        return reply


def test_what_was_made_within_a_document_is_told_in_the_order_of_the_list(tmp_path: Path) -> None:
    pipeline = """\
models: {m: {ref: fake}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: parts
        for_each: part in ['one', 'two', 'three']
        do:
          - {id: sum, uses: chat, with: {prompt: "word {{ part }} of {{ doc.name }}"}}
          - {uses: files.write, with: {path: "out/{{ part }}", text: "{{ steps.sum.text }}"}}
"""
    world = World(tmp_path, pipeline, n_documents=1)
    world.run(pool=SlowOnOne())
    (document,) = (tmp_path / "inbox").iterdir()
    (text,) = (str(use) for use in explain_path(document).read_by)
    places = [text.index(f"out/{word}") for word in ("one", "two", "three")]
    assert places == sorted(places)
