"""Secrets are read when a run begins, and are neither printed nor stored."""

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import run, validate
from paddock.runner.config.pipeline_secrets import RedactedError
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.world import each_document, run_arguments, settings

TOKEN, PASSWORD = "tk-4711-geheim", 'p"w\\n/ä+7 zz'

PIPELINE = """\
name: secretive
secrets:
  token: {env: THE_TOKEN}
  password: {file: private/password.txt}
inputs: {pin: {type: str, secret: true, default: none}}
""" + each_document("""\
      - id: said
        uses: prompt
        with:
          template: >-
            {{ steps.text.text }} {{ secrets.token }} {{ secrets.password }} {{ inputs.pin }}
      - id: sum
        uses: chat
        if: secrets.token != ''
        with: {prompt: "Say: {{ steps.said.text }}"}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {said: steps.said.text, sum: steps.sum.text}
returns: {all: steps.each.results}
""")


class Listening(Observer):
    """Keeps all that an observer is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def item(self, step: str, key: str, state: Any, detail: str | None) -> None:
        self.lines.append(f"{step} {key} {state} {detail}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    (tmp_path / "private").mkdir()
    (tmp_path / "private/password.txt").write_text(f"{PASSWORD}\n")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_text("A ferry.")
    (tmp_path / "p.yaml").write_text(PIPELINE)
    yield tmp_path


def ran(folder: Path, pool: FakePool, **options: Any) -> Report:
    own = replace(settings(folder), allow=frozenset(["secrets"]))
    options.setdefault("observer", Observer())
    return run(
        folder / "p.yaml",
        {"pin": "pin-9876"},
        *run_arguments(local=True, pool=pool, settings=own, **options),
    )


def echo(request: ChatRequest) -> str:
    return f"You said: {request.messages[-1].content}"


def stored(folder: Path) -> bytes:
    files = [path for path in (folder / ".paddock").rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" or "ledger" in path.name for path in files)
    return b"".join(path.read_bytes() for path in files)


def test_a_model_gets_the_secret_and_nothing_that_is_kept_has_it(folder: Path) -> None:
    pool, observer = FakePool(answer=echo), Listening()
    report = ran(folder, pool, observer=observer)
    prompt = pool.chats[0].messages[-1].content
    assert TOKEN in prompt
    assert PASSWORD in prompt
    assert "pin-9876" in prompt
    kept = stored(folder).decode("utf-8", "replace") + repr(report) + "\n".join(observer.lines)
    kept += str(report.as_json())
    for secret in (TOKEN, 'p"w', 'p\\"w', "pin-9876"):
        assert secret not in kept
    assert report.returns["all"][0]["said"] == "A ferry. *** *** ***"
    assert (folder / "out/a.txt").read_text() == "You said: Say: A ferry. *** *** ***"


def test_a_second_run_sees_the_same_and_a_new_secret_in_a_prompt_is_another_prompt(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ran(folder, FakePool(answer=echo))
    pool = FakePool(answer=echo)
    second = ran(folder, pool)
    assert pool.chats == []
    assert second.returns == first.returns
    assert second.counts["fresh"] == 1
    monkeypatch.setenv("THE_TOKEN", "another-token")
    third = ran(folder, pool)
    assert "another-token" in pool.chats[0].messages[-1].content
    assert third.returns == first.returns


def test_an_error_that_repeats_a_secret_is_told_without_it(folder: Path) -> None:
    def refuse(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        if "ferry" in prompt:  # this document, not every request of this form
            raise BadRequest(f"cannot read {prompt}")
        return "yes"

    observer = Listening()
    report = ran(folder, FakePool(answer=refuse), observer=observer)
    assert report.items[0].error == "step 'sum': cannot read Say: A ferry. *** *** ***"
    assert TOKEN not in "\n".join(observer.lines)
    assert TOKEN.encode() not in stored(folder)


def test_a_bug_that_repeats_a_secret_leaves_none_in_its_traceback(folder: Path) -> None:
    def fail(request: ChatRequest) -> str:
        raise ZeroDivisionError(request.messages[-1].content)

    report = ran(folder, FakePool(answer=fail))
    assert report.log is not None
    assert "ZeroDivisionError: Say: A ferry. ***" in Path(report.log).read_text()
    assert TOKEN.encode() not in stored(folder)


def test_an_error_that_ends_the_run_is_raised_without_a_secret_and_without_its_causes(
    folder: Path,
) -> None:
    class Breaking(FakePool):
        async def facts(self, model: ModelSpec) -> ModelFacts:
            raise BadRequest(f"what of {TOKEN}?") from ValueError(TOKEN)

    with pytest.raises(RedactedError) as caught:
        ran(folder, Breaking())
    assert str(caught.value) == "what of ***?"
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{env: NOT_SET_ANYWHERE}",
            "secret 'token': the environment variable NOT_SET_ANYWHERE is not set.",
        ),
        ("{env: EMPTY}", "secret 'token': it is empty."),
        (
            "{env: SHORT}",
            "secret 'token': it has fewer than 4 characters, and could not be kept out of texts.",
        ),
        ("{file: no/where}", "secret 'token': {folder}/no/where cannot be read: No such file"),
        ("{file: private}", "secret 'token': {folder}/private cannot be read: it is a folder."),
        ("{file: binary}", "secret 'token': {folder}/binary holds no text."),
        (
            "{prefect: secret/key}",
            "secret 'token': Prefect's Secret block 'key' can be read in a flow run alone.",
        ),
        ("{file: large}", "secret 'token': it has more than 65,536 characters."),
    ],
)
def test_a_secret_that_cannot_be_had_is_named_before_anything_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("SHORT", "abc")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "large").write_text("x" * 100_000)
    text = PIPELINE.replace("{env: THE_TOKEN}", written)
    (folder / "p.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        ran(folder, FakePool())
    assert str(caught.value).startswith(f"{folder}/p.yaml:3:10: {expected.format(folder=folder)}")
    assert not (folder / ".paddock").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{env: THE_TOKEN}",
            "{env: A, file: b}",
            "in 'token': give exactly one of `env`, `file` and `prefect`.",
        ),
        ("{env: THE_TOKEN}", "{}", "in 'token': give exactly one of `env`, `file` and `prefect`."),
        (
            "{env: THE_TOKEN}",
            "tk-4711",
            "secret 'token' is a text; secrets must not be written into the file.",
        ),
        ("secrets.token }}", "secrets.tokem }}", "there is no secret 'tokem'."),
        ("secrets.token }}", "secrets }}", "`secrets` alone names no secret."),
        ("said: steps.said.text,", "said: secrets.token,", "a secret cannot be read here."),
        ("all: steps.each.results", "all: secrets.token", "a secret cannot be read here."),
        ("  token:", "  to-ken:", "'to-ken' cannot be the name of a secret."),
    ],
)
def test_what_is_written_wrong_is_a_fault(folder: Path, old: str, new: str, expected: str) -> None:
    assert old in PIPELINE
    (folder / "p.yaml").write_text(PIPELINE.replace(old, new))
    assert expected in [fault.message for fault in validate(folder / "p.yaml").faults]


@pytest.mark.parametrize(
    "place",
    [
        "on: {notify: [{when: [failed], command: [curl, -H, '{{ secrets.token }}']}]}\n",
        "on: {notify: [{when: [failed], command: 'curl {{ secrets.token }}'}]}\n",
        "mcpServers: {far: {command: npx, args: [--key, '{{ secrets.token }}']}}\n",
        "mcpServers: {file: mcp.json}\n",
        "x-step: {uses: run, with: {command: [curl, -H, '{{ secrets.token }}']}}\n",
    ],
)
def test_a_secret_in_a_command_line_is_refused(folder: Path, place: str) -> None:
    server = {"command": "npx", "args": ["--key", "${THE_TOKEN}"]}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"far": server}}))
    step = place.removeprefix("x-step: ")
    head, body = PIPELINE.split("steps:\n")
    body = body if step == place else f"  - {step}{body}"
    head = head + place if step == place else head
    (folder / "p.yaml").write_text(f"{head}steps:\n{body}")
    (fault,) = validate(folder / "p.yaml").faults
    assert fault.message.startswith("every user of this machine can read a command line, so secret")
    assert (
        fault.remedy == "Give it in a variable of `env`, or have the command read it from a file."
    )
