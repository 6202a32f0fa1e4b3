"""What a plan tells: how many calls, and the time, from the models' profiles, else the last run."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.profile.profile import ProfileStore
from paddock.engine.request import Message, ModelSpec, Tool
from paddock.engine.system.records import replace
from paddock.runner.api import plan
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_stats import RunStats
from paddock.runner.dry_run.dry_tools import AskedPrompts, DryPool
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from paddock.runner.settings import Settings
from tests.engine.backends.test_speed_estimates import profile
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import World, each_document
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


# --- the tools of a dry run: placeholders, and no text that leaves this machine


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
