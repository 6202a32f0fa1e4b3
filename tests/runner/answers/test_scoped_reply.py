"""`reply` from the YAML to the report: kept by its parts, repaired, refused, tried again."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.model import ReplySpec
from paddock.pipelines.reply_check import Check
from paddock.pipelines.reply_schema import ReplySchema
from paddock.runner.answers import scoped_reply as replying
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.scope import Scope
from paddock.steps.base import StepError
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document, errors

PIPELINE = """\
inputs:
  most: {type: int, default: 5}
""" + each_document("""\
      - id: sum
        uses: chat
        with: {prompt: "Sum up: {{ steps.text.text }}"}
        reply:
          schema: {file: form.json}
          check:
            - numbers_found(output.gist, source=steps.text.text)
            - words(output.gist) <= inputs.most
          repair: 1
    returns: {gist: steps.sum.output.gist, text: steps.sum.text}
returns: steps.each.results
""")
FORM = '{"gist": "str"}'


def world(folder: Path, n: int = 1) -> World:
    return World(folder, PIPELINE, {"form.json": FORM}, n_documents=n)


def answering(gist: Callable[[ChatRequest], str]) -> FakePool:
    return FakePool(answer=lambda request: json.dumps({"gist": gist(request)}))


def test_an_answer_is_repaired_once_with_what_its_checks_found(tmp_path: Path) -> None:
    pool = answering(
        lambda request: "Ferry 0" if len(request.messages) > 1 else "Ferry 47 and the rest"
    )
    report = world(tmp_path).run(pool=pool)
    assert report.returns == [{"gist": "Ferry 0", "text": '{"gist":"Ferry 0"}'}]
    assert pool.chats[1].messages[-1].content == (
        "This is wrong with your answer:\n"
        "- `gist`: This is not in the source: 47. Use only what is in it.\n"
        "Give the whole answer again."
    )
    assert report.calls == 2


def test_an_answer_that_stays_wrong_quarantines_its_document_and_its_replies_are_kept(
    tmp_path: Path,
) -> None:
    here = world(tmp_path, 2)
    bad = "a ferry with some old boats"
    report = here.run(
        pool=answering(lambda request: bad if "0" in request.messages[0].content else "ok")
    )
    assert report.status == "quarantined"
    (error,) = errors(report).values()
    assert error == (
        "step 'sum': the answer fails its checks, even after 1 repair. This must be "
        "true: words(output.gist) <= inputs.most (words is 6; inputs.most is 5). "
        'It was: {"gist":"a ferry with some old boats"} '
        "Loosen `check`, raise `repair`, or ask a larger model."
    )
    # What was said is known, so that a looser check needs no call.
    here.edit("default: 5", "default: 6")
    again = here.run(pool=FakePool())
    assert (again.status, again.calls, again.cached_calls) == ("completed", 0, 2)


def test_a_step_that_is_tried_again_after_a_failed_check_gets_another_answer(
    tmp_path: Path,
) -> None:
    here = world(tmp_path)
    here.edit(
        "          repair: 1\n", "          repair: 0\n        retry: {times: 3, on: [check]}\n"
    )
    pool = answering(lambda request: "ok" if request.params.get("seed") == 2 else "47")
    report = here.run(pool=pool)
    assert report.status == "completed"
    assert [request.params.get("seed") for request in pool.chats] == [None, 1, 2]


def test_a_check_that_fails_at_work_names_itself(tmp_path: Path) -> None:
    here = world(tmp_path)
    here.edit("words(output.gist) <= inputs.most", "output.gist / 2 > 1")
    report = here.run(pool=answering(lambda _: "ok"))
    (error,) = errors(report).values()
    assert error.startswith("step 'sum': `check`: 'output.gist / 2 > 1' failed: ")
    assert report.calls == 1


def test_a_check_that_never_ends_holds_up_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    reply = ReplySpec(None, ReplySchema(None), {0: Check.of("hangs(text)")}, repair=0)
    monkeypatch.setattr(replying, "CHECK_FUNCTIONS", {"hangs": lambda text: over.wait(9)})
    monkeypatch.setattr(replying, "CHECK_TIMEOUT_S", 0.05)
    try:
        with pytest.raises(StepError) as caught:
            asyncio.run(_within(ScopedReply(reply, Scope.of({})), over))
    finally:
        over.set()
    assert str(caught.value) == "`check`: the checks take longer than 0.05 s."


async def _within(form: ScopedReply, over: threading.Event) -> None:
    try:
        await form.checked(None, "x")
    finally:
        over.set()
