"""`paddock chat` as a person at a terminal meets it, and as a script does."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.cli.commands.chat import ChatFlags, Conversation
from paddock.runner.daemon.service_client import ServiceError
from tests.live import CHAT, VECTORS, Live
from tests.runner.cli.commands.shell import PADDOCK, paddock, paddock_here
from tests.runner.cli.commands.terminal import CTRL_C, CTRL_D, terminal
from tests.waiting import PATIENCE_S


@pytest.fixture
def environ(live: Live, tmp_path: Path) -> dict[str, str]:
    """What a person has set who uses the running service."""
    return {"PADDOCK_HOST": live.url, "PADDOCK_HOME": str(tmp_path / "home")}


def n_answered(live: Live) -> int:
    return sum(model.n_answers for model in live.service.pool.metrics.snapshot().values())


def test_a_conversation_at_the_terminal(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "capital.json").write_text('{"enum": ["Paris", "Rome"]}')
    (tmp_path / "town.txt").write_text("The town is called Zurnau. " * 40)
    options = ("--format", "capital.json", "--verbose")
    with terminal("chat", CHAT, *options, environ=environ, cwd=tmp_path) as screen:
        screen.wait_for("/? shows the commands, Ctrl-D or /bye leaves.")

        def typed(text: str, words: str) -> str:
            screen.wait_for(">>> ")
            screen.type(text)
            return screen.wait_for(words)

        assert n_prompt_tokens(typed('"""What is\nthe capital?"""\n', "tokens/s")) < 100
        typed("/file town.txt\n", "town.txt goes with the next question.")
        assert n_prompt_tokens(typed("And now?\n", "tokens/s")) > 250, "the document and all turns"
        typed("/clear\n", "The conversation starts from the beginning.")
        typed("/system Be brief. Name a capital.\n", "The system message is set.")
        answer = typed("France?\n", "tokens/s")
        assert '"Paris"' in answer or '"Rome"' in answer
        assert n_prompt_tokens(answer) < 60, "no earlier turn, no document"
        typed("/frob\n", "/load MODEL")
        typed("/load no-such-model\n", "There is no model 'no-such-model' here.")
        typed("/file cat.png\n", f"'{CHAT}' does not take images.")
        typed(f"/load {CHAT}\n", "A new conversation begins.")
        typed("/bye\n", "/bye")
        assert screen.ended() == 0
    history = tmp_path / "home" / "chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "/file town.txt" in history.read_text().splitlines()


LONG = json.dumps({"type": "string", "minLength": 12_000})
"""A schema that no model answers while a test waits: 2,600 tokens take 13 s or more."""


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(
    environ: dict[str, str], live: Live, tmp_path: Path
) -> None:
    (tmp_path / "long.json").write_text(LONG)
    command = ("chat", CHAT, "--format", "long.json")
    with terminal(*command, environ=environ, cwd=tmp_path) as screen:
        screen.wait_for(">>> ")
        screen.type("Write a very long story about a horse, a river and a king.\n")
        screen.wait_for('"')  # the answer has begun
        n_before = n_answered(live)
        screen.type(CTRL_C)
        screen.wait_for("(Stopped.)")
        live.until_idle()
        assert n_answered(live) == n_before, "it was stopped before its end"
        screen.wait_for(">>> ")
        screen.rest()
        screen.type(CTRL_C)
        screen.wait_for("Ctrl-D or /bye leaves.")
        screen.wait_for(">>> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0


def test_a_prompt_is_answered_once(environ: dict[str, str], tmp_path: Path) -> None:
    command = ("chat", CHAT, "What is the capital of France?", "-p", "num_predict=16")
    answer = paddock_here(*command, "-p", "temperature=0", environ=environ, cwd=tmp_path)
    assert (answer.status, answer.err) == (
        0,
        "(The answer reached its limit; `-p num_predict=N` changes it.)\n" if answer.err else "",
    )
    assert answer.out.strip()
    assert answer.out.endswith("\n")


def test_a_pipe_and_a_file_are_read_after_the_prompt(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "town.txt").write_text("The town is called Zürnau.", encoding="utf-8")
    options = ("-p", "num_predict=1", "--verbose")
    piped = paddock(
        "chat", CHAT, "Repeat:", *options, environ=environ, cwd=tmp_path, given="word " * 200
    )
    filed = paddock(
        "chat", CHAT, "Repeat:", "-f", "town.txt", *options, environ=environ, cwd=tmp_path
    )
    assert (piped.status, filed.status) == (0, 0)
    assert n_prompt_tokens(piped.err) > n_prompt_tokens(filed.err) + 100


def n_prompt_tokens(output: str) -> int:
    line = next(line for line in output.splitlines() if line.startswith("prompt"))
    return int(line.split()[1].replace(",", ""))


def test_an_answer_matches_a_schema(environ: dict[str, str], tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    command = ("chat", CHAT, "What is the capital of France?", "--format", "schema.json")
    answer = paddock_here(*command, environ=environ, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert set(json.loads(answer.out)) == {"capital"}


def test_a_script_that_is_interrupted_ends_at_once(
    environ: dict[str, str], live: Live, tmp_path: Path
) -> None:
    (tmp_path / "long.json").write_text(LONG)
    process = subprocess.Popen(
        [PADDOCK, "chat", CHAT, "Write about a horse and a river.", "--format", "long.json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(PATIENCE_S) == 130
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "given", "status", "words"),
    [
        (("no-such-model", "x"), None, 1, "There is no model 'no-such-model' here.\n"
         "  paddock pull no-such-model\n"),
        ((VECTORS, "x"), None, 1, "'all-minilm' is not a chat model.\n"
         "  For vectors: paddock embed all-minilm 'a text'\n"),
        ((CHAT, "x", "-f", "gone.txt"), None, 2, "There is no file 'gone.txt'.\n"),
        ((CHAT, "x", "--format", "gone.json"), None, 2, "--format: There is no file 'gone.json'.\n"
         "  Give 'json', or a file with a JSON Schema.\n"),
        ((CHAT,), "", 2, "There is no prompt: the input is empty.\n"),
        ((CHAT, "x"), b"\0\1\2" * 100, 2, "The input is not text: "),
        ((CHAT, "x", "--think=much"), None, 2, "--think: 'much' is not a level. Known: low, "
         "medium, high, max.\n"),
        ((CHAT, "x", "--think"), None, 1, '"smollm2:135m" does not support thinking\n'),
        ((CHAT, "x", "--image", "gone.png"), None, 1, "'smollm2:135m' does not take images.\n"),
        ((CHAT, "x", "-p", "top_k"), None, 2, "'-p top_k' is not a parameter.\n"
         "  Write it as `-p name=value`.\n"),
        ((CHAT, "x", "-p", "top_k=a"), None, 2, "-p: parameter 'top_k' must be a whole number, "
         "not 'a'\n"),
        ((CHAT, "x", "--keepalive", "soon"), None, 2, "--keepalive: 'soon' is not a duration.\n"),
        (("./x.gguf", "x"), None, 2, "no such file: './x.gguf'.\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_told(
    environ: dict[str, str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    given: Any,
    status: int,
    words: str,
) -> None:
    answer = paddock("chat", *arguments, environ=environ, cwd=tmp_path, given=given)
    assert (answer.status, answer.out) == (status, "")
    assert answer.err.startswith(words)


class Reasoning:
    """A service whose model sees, reasons and forgets; the second question fails."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return {"capabilities": ["completion", "vision", "thinking"]}

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.bodies.append(body)
        if len(self.bodies) == 2:
            raise ServiceError("busy", 503)
        for message in ({"thinking": "hm"}, {"thinking": "m"}, {"content": "a\x1b[2Jb"}):
            yield {"message": message}
        yield {"message": {"content": ""}, "truncated": True, "prompt_tokens_original": 5200}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_reasoning_stands_before_the_answer_on_a_terminal_and_images_go_with_one_question(
    is_terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    service: Any = Reasoning()
    conversation = Conversation(service, ChatFlags("m"), {}, "Be brief.")
    conversation.load("m[/x]")
    conversation.add_image(str(tmp_path / "cat.png"))
    assert conversation.ask("What is it?")
    with pytest.raises(ServiceError):
        conversation.ask("Again?")
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"]
    conversation.ask("And now?")
    _, question, answer, last = service.bodies[2]["messages"]
    assert (question["images"], "images" in last) == (["iVBORw=="], False)
    assert answer == {"role": "assistant", "thinking": "hmm", "content": "a\x1b[2Jb"}
    printed = capsys.readouterr()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", printed.out)
    reasoning = "Thinking...\nhmm\n...done thinking.\n\n" if is_terminal else ""
    assert f"{reasoning}a\\x1b[2Jb\n" in shown
    assert is_terminal or shown == "a\\x1b[2Jb\n" * 2
    assert "The conversation has 5,200 tokens, more than the context holds" in printed.err
