"""What a plan tells: how many calls, and the time, from the models' profiles, else the last run."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.profile.profile import ProfileStore
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Tool
from paddock.runner.api import plan
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_stats import RunStats
from paddock.runner.dry_run.call_bounds import CallBounds
from paddock.runner.dry_run.dry_tools import AskedPrompts, DryPool
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from paddock.runner.settings import Settings
from paddock.steps.base import PLACEHOLDER
from tests.engine.backends.test_speed_estimates import profile
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import World, each_document, states
from tests.runner.world import settings as of_world


def settings(folder: Path) -> Settings:
    made = of_world(folder)
    return replace(made, pool=replace(made.pool, models_dir=folder / "models", n_threads=1))


def test_time_is_told_from_the_profile_then_from_the_last_run(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=3)
    assert plan(world.file, settings=settings(tmp_path)).seconds is None, "nothing was measured"
    world.run()

    # Another file serves than the one that answered (a pool without a model): all is to be done.
    last = plan(world.file, settings=settings(tmp_path))
    assert last.seconds is not None, "at the speed of the last run"

    pool = settings(tmp_path).pool
    slow = profile(pool)
    slow = replace(
        slow,
        prefill=tuple(replace(speed, tokens_per_s=1.0) for speed in slow.prefill),
        decode=tuple(replace(speed, tokens_per_s=1.0) for speed in slow.decode),
    )
    ProfileStore(pool.cache_dir).keep(slow)
    measured = plan(world.file, settings=settings(tmp_path))
    assert measured.tokens is not None
    assert measured.seconds is not None
    assert 0.5 * measured.tokens < measured.seconds <= 1.1 * measured.tokens, "one a second"


def planned_and_made(world: World) -> tuple[int | None, int]:
    """Return how many calls a plan tells, and how many the run after it makes."""
    return world.plan().calls, world.run().calls


ALONE = each_document("""\
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
""")


@pytest.fixture
def alone(tmp_path: Path) -> World:
    world = World(tmp_path, ALONE, n_documents=3)
    world.run()
    return world


def test_a_missing_output_costs_calls_only_where_replies_are_not_kept(alone: World) -> None:
    (alone.folder / "out/0.txt").unlink()
    assert planned_and_made(alone) == (0, 0)
    alone.edit("{id: sum,", "{id: sum, cache: off,")
    alone.run()
    (alone.folder / "out/0.txt").unlink()
    assert planned_and_made(alone) == (1, 1)


def test_what_reads_a_block_is_fresh_where_only_an_output_of_it_is_missing(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=3)
    world.run()
    (tmp_path / "out/0.txt").unlink()
    plan, report = world.plan(), world.run()
    assert (plan.calls, report.calls) == (0, 0)
    assert states(plan) == states(report) == {"0.txt": "stale"}
    assert states(plan, "digest") == states(report, "digest") == {}
    world.edit("All: {{ steps.each.results }}", "{{ steps.each.changed }}{{ steps.each.counts }}")
    world.run()
    world.run()
    (tmp_path / "out/1.txt").unlink()
    plan, report = world.plan(), world.run()
    assert (plan.calls, report.calls) == (1, 1)
    assert states(plan, "digest") == states(report, "digest") == {"digest": "stale"}


MISSING = "'gone.txt' cannot be read: it does not exist."


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("{id: a, uses: files.read, with: {path: gone.txt}}", MISSING),
        ('{id: a, uses: files.read, with: {path: "{{ inputs.file }}"}}', MISSING),
        ("{id: a, uses: summarise, with: {file: gone.txt}}", MISSING),
        ("{id: a, uses: files.rows, with: {path: gone.txt}}", MISSING),
        ("{id: a, uses: chat, with: {prompt: {file: gone.txt}}}", "there is no file 'gone.txt'."),
        ("{id: a, uses: chat, with: {prompt: Hi, images: [gone.txt]}}", "gone.txt' cannot be read"),
        ("{id: a, uses: files.scan, with: {root: gone.txt}}", "gone.txt' does not exist"),
        ("{id: a, uses: search, with: {store: gone.txt, query: Who}}", "there is no store"),
    ],
)
def test_a_file_that_a_step_at_the_top_needs_and_that_is_not_there_is_told(
    tmp_path: Path, steps: str, words: str
) -> None:
    inputs = "inputs: {file: {type: path, default: gone.txt}}\n"
    world = World(tmp_path, f"{inputs}steps: [{steps}]\n")
    fault = fault_of(world.plan)
    assert words in fault.message
    assert fault.mark is not None and fault.mark.line == 2


def test_a_file_that_an_earlier_step_makes_need_not_be_there_yet(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        """\
steps:
  - {id: made, uses: files.write, with: {path: out/a.txt, text: Hello}}
  - {id: first, uses: files.read, with: {path: "{{ steps.made.path }}"}}
  - {id: second, uses: files.read, needs: [made], with: {path: out/a.txt}}
  - {id: both, uses: chat, with: {prompt: "{{ steps.first.text }}{{ steps.second.text }}"}}
""",
    )
    planned = world.plan()
    assert (planned.calls, planned.calls_are) == (1, "at most")
    assert world.run().calls == 1


def test_each_model_has_the_calls_of_its_own_steps(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "steps:\n  - id: each\n    for_each: n in ['x', 'y', 'z']\n    key: n\n    do:\n"
        "      - {id: near, uses: embed, with: {texts: [same, same]}}\n"
        '      - {id: told, uses: agent, with: {prompt: "{{ n }}", tools: [now], max_turns: 4}}\n',
    )
    planned = world.plan()
    assert (planned.likely_calls, planned.least_calls) == (1 + 3 * 5, 1)
    assert planned.models == {"all-minilm": 1, "smollm2:135m": 3 * 5}
    assert planned.least_models == {"all-minilm": 1}


def test_a_file_that_is_empty_now_may_be_written_before_it_is_read(world: World) -> None:
    (world.folder / "pipeline.yaml").write_text("""\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - for_each: doc in steps.docs.files
    do:
      - {id: sum, uses: chat, with: {prompt: "Sum up {{ doc.name }}"}}
      - {id: w, uses: files.write, with: {path: "out/{{ doc.name }}", text: "{{ steps.sum.text }}"}}
      - {id: back, needs: [w], uses: files.read, with: {path: "out/{{ doc.name }}", empty: skip}}
      - {id: more, uses: chat, with: {prompt: "More of {{ steps.back.text }}"}}
""")
    world.write("inbox/a.txt", "a")
    world.write("out/a.txt", "")
    planned = world.plan()
    assert (planned.calls, planned.calls_are, planned.least_calls) == (2, "at most", 1)


# --- the tools of a dry run: placeholders, and no text that leaves this machine


HI = ChatRequest(ModelSpec("m"), (Message("user", "Hi"),))


class Mute(FakePool):
    """Fails when it is asked to count."""

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        raise AssertionError("a prompt was sent")

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        raise AssertionError("texts were sent")


def dry(folder: Path, pool: FakePool, *, exactly: bool = True, is_long: bool = False) -> DryPool:
    ledger = Ledger(folder / "none", is_readonly=True)
    caller = CallOrigin("scope", "step", "key", looks_up=True)
    stats, models = RunStats("run", "pipeline", Observer()), RunModels(pool.facts)
    world = SimpleNamespace(models=models)
    context: Any = SimpleNamespace(pool=pool, ledger=ledger, world=world, stats=stats)
    prompts = AskedPrompts(False, is_local=exactly)
    return DryPool(context, caller, prompts, is_long=is_long)


@pytest.mark.parametrize(
    ("model", "exactly"), [(ModelSpec("m"), False), (ModelSpec("m", pool="far"), True)]
)
def test_no_text_is_sent_to_be_counted_elsewhere(
    tmp_path: Path, model: ModelSpec, exactly: bool
) -> None:
    text = "The ferry leaves at nine. " * 400

    async def counts(*, is_long: bool) -> tuple[int, int]:
        pool = dry(tmp_path, Mute(), exactly=exactly, is_long=is_long)
        (n_text,) = await pool.count_texts(model, [text])
        return n_text, await pool.count_chat(model, [Message("user", text)])

    least, most = asyncio.run(counts(is_long=False)), asyncio.run(counts(is_long=True))
    assert all(0 < low < high for low, high in zip(least, most, strict=True))


async def test_an_unknown_answer_is_a_placeholder_and_counted_once(tmp_path: Path) -> None:
    pool = dry(tmp_path, FakePool())
    assert (await pool.chat(HI).reply()).text == PLACEHOLDER
    assert pool.calls == CallBounds(Counter("m"), Counter("m"))
    await pool.chat(HI).reply()
    assert pool.calls == CallBounds(Counter("m"), Counter("m"))


def test_a_placeholder_has_the_form_that_is_asked_for(tmp_path: Path) -> None:
    schema = (
        '{"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer", '
        '"minimum": 3}, "all": {"type": "array", "items": {"enum": ["x", "y"]}}}}'
    )
    request = ChatRequest(HI.model, HI.messages, constraint=Constraint("json_schema", schema))
    reply = asyncio.run(dry(tmp_path, FakePool()).chat(request).reply())
    assert reply.text == f'{{"a": "{PLACEHOLDER}", "n": 3, "all": ["x"]}}'


def test_with_long_answers_a_placeholder_counts_as_the_longest(tmp_path: Path) -> None:
    texts = ["one two", f"one {PLACEHOLDER}"]
    short = asyncio.run(dry(tmp_path, FakePool()).count_texts(HI.model, texts))
    long = asyncio.run(dry(tmp_path, FakePool(), is_long=True).count_texts(HI.model, texts))
    assert short == [2, 2]
    assert long == [2, 2 + 1024], "a quarter of 4,096"
