"""The tutorial, followed to the letter: each command, edit and line of output in its order.

In a block `console`, `$` begins a command and what follows is what it prints, in this order; `…`
stands for anything, `>` begins a line that goes on, and `^C` is the key that ends a command. A
block `diff` is an edit of the file that the sentence before it names.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.prefect_server import seed
from tests.waiting import PATIENCE_S

TUTORIAL = Path(__file__).resolve().parents[1] / "examples" / "TUTORIAL.md"
_BLOCK = re.compile(r"^```(console|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    line: str
    prints: tuple[str, ...]
    is_ended_by_key: bool


@dataclass(frozen=True)
class Edit:
    file: str
    before: str
    after: str


def read_tutorial(text: str) -> Iterator[Command | Edit]:
    """Yield what the page tells to do, in its order."""
    for block in _BLOCK.finditer(text):
        if block[1] == "diff":
            (*_, file) = re.findall(r"`([^`\s]+\.\w+)`", text[: block.start()])
            yield Edit(file, *(_side(block[2], sign) for sign in "-+"))
            continue
        for part in re.split(r"^\$ ", block[2], flags=re.MULTILINE)[1:]:
            line, *printed = part.rstrip("\n").split("\n")
            while printed and printed[0].startswith(">"):  # bash's mark of a line that goes on
                line += f"\n{printed.pop(0)[2:]}"
            shown = tuple(one for one in printed if one.strip() not in ("", "…", "^C"))
            yield Command(line.partition("   #")[0].strip(), shown, "^C" in printed)


def _side(text: str, sign: str) -> str:
    lines = [line for line in text.splitlines() if line[:1] in (" ", sign)]
    return "".join(f"{line[1:]}\n" for line in lines)


def first_missing(prints: tuple[str, ...], output: str) -> str | None:
    """Return the first line that the output does not have after those before it."""
    lines = iter(output.splitlines())
    for wanted in prints:
        pattern = re.compile(".*".join(map(re.escape, wanted.strip().split("…"))))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return wanted
    return None


def run_command(command: Command, folder: Path, environ: dict[str, str]) -> str:
    """Return what it prints on both streams; a command that `^C` ends gets it when all is there."""
    log = folder / ".output"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command.line}" if command.is_ended_by_key else command.line],
            cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            if command.is_ended_by_key:
                deadline = time.monotonic() + PATIENCE_S
                while time.monotonic() < deadline and process.poll() is None:
                    if first_missing(command.prints, log.read_text("utf-8")) is None:
                        break
                    time.sleep(0.2)
                process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    return log.read_text("utf-8")


def test_a_page_is_read_as_commands_with_output_and_edits() -> None:
    page = "In `a/b.yaml`:\n```diff\n x\n-y\n+z\n```\n```console\n$ ls   # all\nA … C\n…\n^C\n```\n"
    edit, command = read_tutorial(page)
    assert edit == Edit("a/b.yaml", "x\ny\n", "x\nz\n")
    assert command == Command("ls", ("A … C",), is_ended_by_key=True)
    assert first_missing(("A … C", "D"), "A b C\nD") is None
    assert first_missing(("D", "A … C"), "A b C\nD") == "A … C"


@pytest.mark.timeout(900)  # a real model does each step of the tutorial
def test_the_tutorial_can_be_followed_to_the_letter(tmp_path: Path) -> None:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    seed(home / "prefect")
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PADDOCK_HOME": str(home),
        "COLUMNS": "200",
        "PYTHONUNBUFFERED": "1",  # both streams in the order in which a terminal shows them
    }
    n_commands = 0
    try:
        for step in read_tutorial(TUTORIAL.read_text("utf-8")):
            if isinstance(step, Edit):
                text = (folder / step.file).read_text("utf-8")
                assert text.count(step.before) == 1, step
                (folder / step.file).write_text(text.replace(step.before, step.after), "utf-8")
                continue
            output = run_command(step, folder, environ)
            missing = first_missing(step.prints, output)
            assert missing is None, f"$ {step.line}\nhas no line: {missing}\nbut:\n{output}"
            n_commands += 1
    finally:
        subprocess.run(["paddock", "service", "stop"], env=environ, check=False, timeout=PATIENCE_S)
    assert n_commands >= 10
