"""The tools of a dry run: placeholders, and no text that leaves this machine."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Tool
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_stats import RunStats
from paddock.runner.dry_run.call_bounds import CallBounds
from paddock.runner.dry_run.dry_tools import AskedPrompts, DryPool
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from paddock.steps.base import PLACEHOLDER
from tests.fakes.pool import FakePool

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
