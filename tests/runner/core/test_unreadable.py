"""Files that cannot be read and folders that cannot be written: what a run does with them.

As root every file can be read, so that privilege is put aside while a command runs.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.privileges import without_roots_privilege
from tests.runner.cli.commands.shell import PADDOCK, Ended, invoke
from tests.runner.world import each_document
from tests.waiting import PATIENCE_S

PIPELINE = each_document("""\
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}
""")
Paddock = Callable[..., Ended]
Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "good.txt").write_text("A letter.")
    return folder


@pytest.fixture
def paddock(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> Paddock:
    """Return what runs a command as someone for whom permissions count, in this process."""
    monkeypatch.chdir(inbox.parent)
    monkeypatch.setenv("PADDOCK_HOME", str(inbox.parent / "home"))

    def go(*arguments: str) -> Ended:
        with ExitStack() as stack:
            if os.geteuid() == 0:
                try:
                    stack.enter_context(without_roots_privilege())
                except OSError as error:
                    pytest.skip(f"NOT TRIED: root may do everything ({error})")
            ended = invoke(*arguments)
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    return go


@pytest.fixture
def run(paddock: Paddock) -> Run:
    def go(*options: str) -> tuple[int, dict[str, Any], str]:
        ended = paddock("run", "--local", "--json", *options)
        return ended.status, json.loads(ended.out), ended.err

    return go


def states(report: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["state"] for item in report["items"]}


def test_a_file_that_may_not_be_read_is_quarantined_then_known_then_done_when_it_may(
    inbox: Path, run: Run
) -> None:
    locked = inbox / "locked.txt"
    locked.write_text("A secret.")
    locked.chmod(0)
    status, report, _ = run()
    assert (status, states(report)) == (3, {"good.txt": "new", "locked.txt": "quarantined"})
    (error,) = (item["error"] for item in report["items"] if item["error"])
    assert error == ("step 'text': 'locked.txt' cannot be read: the permissions do not allow it.")
    for _ in range(2):
        status, report, _ = run()
        assert (status, states(report)) == (0, {"good.txt": "fresh", "locked.txt": "quarantined"})
    locked.chmod(0o200)  # another mode that does not allow it either
    assert run()[0] == 0
    locked.chmod(0o600)
    status, report, _ = run()
    assert (status, states(report)) == (0, {"good.txt": "fresh", "locked.txt": "changed"})
    assert (inbox.parent / "out" / "locked.txt").read_text() == "A secret."


def test_what_is_no_file_stops_no_one_and_what_is_left_out_is_named(inbox: Path, run: Run) -> None:
    (inbox / "link.txt").symlink_to("nowhere.txt")
    os.mkfifo(inbox / "pipe.txt")
    (inbox / "closed").mkdir()
    (inbox / "closed" / "a.txt").write_text("A letter.")
    (inbox / "closed").chmod(0)
    Path(os.fsdecode(os.fsencode(inbox) + b"/bad\xff.txt")).write_text("A letter.")
    for state in ("new", "fresh"):
        status, report, printed = run()
        assert (status, states(report)) == (0, {"good.txt": state})
        assert "docs: ./inbox: 'bad\\xff.txt' left out, the name is not UTF-8.\n" in printed
        assert "docs: ./inbox: 'closed/' left out, the folder cannot be read.\n" in printed
    (inbox / "closed").chmod(0o700)
    assert states(run()[1])["closed/a.txt"] == "new"


def test_a_file_that_is_gone_before_it_is_read_is_no_longer_missed(inbox: Path, run: Run) -> None:
    pipeline = inbox.parent / "pipeline.yaml"
    before = "      - {id: text,"
    gone = "      - {uses: run, with: {command: [rm, -f, inbox/gone.txt]}}\n"
    pipeline.write_text(PIPELINE.replace(before, gone + before))
    (inbox / "gone.txt").write_text("A letter.")
    status, report, _ = run("--allow", "run")
    assert (status, states(report)) == (3, {"gone.txt": "quarantined", "good.txt": "new"})
    status, report, _ = run("--allow", "run")
    assert (status, states(report)["good.txt"], report["counts"]["quarantined"]) == (0, "fresh", 0)


@pytest.mark.parametrize("earlier", [(), ("--fail-on=new",)])
@pytest.mark.parametrize("key", ["doc.relpath", "doc.stem"])
def test_below_a_folder_that_cannot_be_listed_nothing_is_gone(
    key: str, earlier: tuple[str, ...], inbox: Path, run: Run
) -> None:
    of_each = "    for_each: doc in steps.docs.files\n"
    keyed = PIPELINE.replace(of_each, f"{of_each}    key: {key}\n")
    (inbox.parent / "pipeline.yaml").write_text(keyed)
    folder = inbox / "sub"
    folder.mkdir()
    (folder / "b.txt").write_text("Another letter.")
    (inbox / "more.txt").write_text("More.")
    assert run()[0] == 0
    folder.chmod(0o000)
    if earlier:
        run(*earlier)
    status, report, _ = run("--prune")
    assert (status, report["counts"]["deleted"]) == (0, 0)
    assert (inbox.parent / "out/sub/b.txt").read_text() == "Another letter."
    folder.chmod(0o755)
    (folder / "b.txt").unlink()
    assert run("--prune")[1]["counts"]["deleted"] == 1
    assert not (inbox.parent / "out/sub/b.txt").exists()


# --- folders that cannot be written


@pytest.fixture
def closed(inbox: Path) -> Path:
    """A folder in which no one may write."""
    folder = inbox.parent / "closed"
    folder.mkdir(mode=0o555)
    return folder


WITH_OUT = PIPELINE.replace('"out/', '"{{ inputs.out }}/').replace(
    "steps:\n  - {id: docs",
    "inputs: {out: {type: dir, default: closed/out}}\nsteps:\n  - {id: docs",
)


def test_a_run_whose_output_cannot_be_written_does_not_begin(
    inbox: Path, closed: Path, paddock: Paddock
) -> None:
    before = "      - {id: text,"
    touched = "      - {uses: run, with: {command: [touch, begun]}}\n"
    text = WITH_OUT.replace(before, touched + before)
    (inbox.parent / "pipeline.yaml").write_text(text)
    ended = paddock("run", "--local", "--allow", "run")
    assert ended.status == 2
    owner = closed.owner()
    assert ended.err.endswith(
        f"pipeline.yaml:9:15: step '(files.write)' cannot write to '{closed}/out': '{closed}' "
        f"belongs to '{owner}' and its permissions do not allow it.\n"
        "       9 |       - uses: files.write\n"
        "         |               ^^^^^^^^^^^\n"
        "  No item was begun. Make it writable, or `-i out=DIR` names another folder.\n"
    )
    assert not (inbox.parent / "begun").exists()
    (entry,) = (line for line in paddock("logs").out.splitlines() if "cannot write" in line)
    assert entry == (
        f"  pipeline.yaml:9:15: step '(files.write)' cannot write to '{closed}/out': '{closed}' "
        f"belongs to '{owner}' and its permissions do not allow it. "
        "No item was begun. Make it writable, or `-i out=DIR` names another folder."
    )
    assert paddock("run", "--local", "--allow", "run", "-i", "out=elsewhere").status == 0
    assert (inbox.parent / "elsewhere" / "good.txt").read_text() == "A letter."


def test_what_cannot_be_written_is_refused_before_anything_is_done(
    inbox: Path, closed: Path, paddock: Paddock
) -> None:
    why = f"'closed' belongs to '{closed.owner()}' and its permissions do not allow it.\n"
    for arguments, expected in (
        (("run", "--local", "--report", "closed/r.html"),
         f"'closed/r.html' cannot be written: {why}  Name another place.\n"),
        (("run", "--local", "--junit", "closed/r.xml"),
         f"'closed/r.xml' cannot be written: {why}  Name another place.\n"),
        (("graph", "-o", "closed/p.mmd"),
         f"'closed/p.mmd' cannot be written: {why}  Name another place.\n"),
        (("summarise", "inbox", "-o", "closed"),
         f"'closed' cannot be written: {why}  Name another folder by `-o`.\n"),
        (("init", "minimal", "closed/new"),
         f"'closed/new' cannot be made: {why}  Name another folder.\n"),
    ):  # fmt: skip
        ended = paddock(*arguments)
        assert (ended.status, ended.err) == (2, expected)
    assert not (inbox.parent / "out").exists()


def steps(text: str) -> str:
    return f"name: named\nsteps:\n  - {{id: s, {text}}}\n"


@pytest.mark.parametrize(
    "step",
    [
        "files.move, with: {path: inbox/large.txt, to: out/, mode: copy}",
        "files.read, with: {path: inbox/large.txt, max_bytes: 4TiB}",
    ],
)
def test_sigterm_ends_a_run_that_reads_a_file_without_an_end(inbox: Path, step: str) -> None:
    """Of a sparse file: as large as no disk, and hashed for an hour."""
    (inbox.parent / "pipeline.yaml").write_text(f"steps: [{{id: large, uses: {step}}}]\n")
    with (inbox / "large.txt").open("wb") as file:
        file.truncate(2 * 1024**4)
    with subprocess.Popen(
        [PADDOCK, "run", "--local"], cwd=inbox.parent, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PADDOCK_HOME": str(inbox.parent / "home")},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            output = ""
            while "large: running" not in output:
                line = process.stderr.readline()
                assert line, output
                output += line
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 130
        finally:
            process.kill()
