"""A command: no shell, a clean environment, bounded in time and output, ended as a whole."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.engine.errors import DeadlineExceeded
from paddock.engine.system.processes import MOST_ERROR_BYTES
from paddock.steps import run_command
from paddock.steps.base import StepError
from paddock.steps.run_command import RunCommand, RunOutput, RunParams
from tests.fakes.tools import tools
from tests.waiting import is_alive, until


def run(folder: Path, *command: Any, **wishes: Any) -> RunOutput:
    params = RunParams(command=list(command), **wishes)
    return asyncio.run(RunCommand().run(params, tools(folder)))


def refused(folder: Path, *command: Any, **wishes: Any) -> str:
    with pytest.raises(StepError) as caught:
        run(folder, *command, **wishes)
    return str(caught.value)


def test_a_command_reads_its_input_and_its_words_are_not_expanded(tmp_path: Path) -> None:
    out = run(tmp_path, "sh", "-c", 'cat; echo "$0" >&2', "*; $HOME", stdin="Grüße")
    assert out.model_dump() == {"stdout": "Grüße", "stderr": "*; $HOME\n", "code": 0}
    assert run(tmp_path, "head", "-c", 2, stdin="abc").stdout == "ab"


def test_it_gets_no_more_of_our_environment_than_any_program_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    shown = run(tmp_path, "env", env={"TONE": "plain", "N": 3}).stdout.splitlines()
    assert {"TONE=plain", "N=3"} <= set(shown)
    assert not any("secret" in line for line in shown)


def test_it_runs_in_the_pipelines_folder_or_in_one_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    assert run(tmp_path, "pwd").stdout == f"{tmp_path.resolve()}\n"
    assert run(tmp_path, "pwd", cwd="below").stdout == f"{tmp_path.resolve() / 'below'}\n"
    assert "leads outside the pipeline's folders" in refused(tmp_path, "pwd", cwd="..")
    assert refused(tmp_path, "pwd", cwd="none") == (
        f"the folder '{tmp_path.resolve() / 'none'}' is not there."
    )


def test_another_code_than_expected_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    script = ["sh", "-c", "echo so; echo it broke >&2; exit 3"]
    assert refused(tmp_path, *script) == (
        "`sh -c 'echo so; echo it broke >&2; exit 3'` ended with code 3: it broke. "
        "Add 3 to `ok_codes` where that is not a failure."
    )
    assert run(tmp_path, *script, ok_codes=[0, 3]).code == 3
    assert refused(tmp_path, "sh", "-c", "kill $$") == "`sh -c 'kill $$'` was killed by SIGTERM."
    assert refused(tmp_path, "sh", "-c", "kill -9 $$") == (
        "`sh -c 'kill -9 $$'` was killed, as where memory runs out. "
        "Free memory, or let fewer items run at once (`max_parallel`)."
    )


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, "no-such-program", "-v") == (
        "there is no program 'no-such-program' here. Install it, or name its path."
    )
    assert refused(tmp_path, "") == "`command` begins with an empty word; name the program."
    (tmp_path / "text").write_text("hello")
    assert refused(tmp_path, "./text") == "`./text` cannot be started: Permission denied."
    assert "cannot be started" in refused(tmp_path, "echo", "a\0b")
    assert refused(tmp_path, "ls", env={"": "x"}) == (
        "`ls` cannot be started: illegal environment variable name."
    )
    assert refused(tmp_path, "ls -l") == (
        "there is no program 'ls -l' here. Write its words one by one: `[ls, -l]`."
    )
    (tmp_path / "script").write_text("#!/no/such/shell\n")
    (tmp_path / "script").chmod(0o755)
    assert refused(tmp_path, "./script") == (
        "`./script` cannot be started: the program that its first line names is not there."
    )


def test_a_command_without_words_is_no_command() -> None:
    with pytest.raises(ValidationError):
        RunParams(command=[])
    with pytest.raises(ValidationError):
        RunParams(command="ls -l")  # type: ignore[arg-type]


def test_too_much_output_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "MOST_BYTES", 100_000)
    assert refused(tmp_path, "yes") == (
        "`yes` wrote more than 100,000 bytes, and was ended. Let it write less, or into a file."
    )
    endless = ["sh", "-c", "yes >&2 & sleep 0.1; kill $!"]
    assert len(run(tmp_path, *endless).stderr) <= MOST_ERROR_BYTES


def test_a_command_and_what_it_started_end_when_no_one_waits_any_more(tmp_path: Path) -> None:
    async def cancelled() -> None:
        script = "trap '' TERM; sleep 600 & echo $! > pid; wait; sleep 600"
        step = RunCommand().run(RunParams(command=["sh", "-c", script]), tools(tmp_path))
        task = asyncio.create_task(step)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110 - a file tells no one
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(cancelled())
    # It is killed, not waited for, and sleeps ten minutes if not: a busy machine needs a moment.
    until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_without_a_time_of_the_authors_it_has_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "DEFAULT_TIMEOUT_S", 0.2)
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0.2 s \(timeout.total\)"):
        run(tmp_path, "sleep", "60")


def test_who_holds_its_pipes_open_afterwards_is_not_waited_for(tmp_path: Path) -> None:
    ended = run(tmp_path, "sh", "-c", "sleep 3600 & echo $!")
    with suppress(ProcessLookupError):
        os.kill(int(ended.stdout), signal.SIGKILL)


def test_much_that_goes_in_and_comes_out_at_once_does_not_stand_still(tmp_path: Path) -> None:
    text = "0123456789" * 100_000
    assert run(tmp_path, "cat", stdin=text).stdout == text
    assert run(tmp_path, "true", stdin=text).code == 0


def test_the_ledger_keeps_the_call_but_no_value_of_the_environment(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Memo:
        async def once(self, kind: str, what: Any, do: Any, *, keeps: bool = True) -> Any:
            asked.append((kind, what, keeps))
            return await do()

    hands = tools(tmp_path, memo=Memo())
    params = RunParams(command=["cat"], stdin="hi", env={"KEY": "secret"})
    asyncio.run(RunCommand().run(params, hands))
    what = {"tool": "run", "command": ["cat"], "stdin": "hi", "env": ["KEY"]}
    assert asked == [("tool", what, False)]
