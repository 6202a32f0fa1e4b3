"""What another user plants among documents, or puts in place of a pipeline's own state.

Each command, page and tool that opens ledgers: nothing of it is read, believed, changed or waited
for. Where the tests run as root, the files belong to a second user.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddock.runner.cli.agent_tools import DATA, AgentTools
from paddock.runner.cli.detached_run import DetachedRuns
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.schedule.folder_locks import FolderLocks
from tests.runner.cli.commands.shell import invoke
from tests.runner.cli.test_web_console import served, signed_in
from tests.runner.world import World

SECOND_USER = 54321
pytestmark = pytest.mark.usefixtures("own_home")
as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="a second user was NOT tried: only root can be another user"
)
COPIES = """\
name: copies
inputs: {place: {type: path, default: inbox/a.txt}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - {id: text, uses: files.read, with: {path: "{{ inputs.place }}"}}
  - {uses: files.write, with: {path: out/copy.txt, text: "{{ steps.text.text }}"}}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "pipes", COPIES, beside={"inbox/a.txt": "ferry"})
    assert world.run().status == "completed"
    monkeypatch.chdir(world.folder)
    return world


@pytest.fixture
def planted(world: World) -> Path:
    """A folder of documents with a pipeline, settings and a ledger with runs, answers, reviews."""
    folder = world.folder / "inbox/deep"
    shutil.copytree(world.folder / ".paddock", folder / ".paddock")
    (folder / "pipeline.yaml").write_text(COPIES)
    (folder / "paddock.toml").write_text('keep_runs = "1m"')
    given = json.dumps({"inputs": {"place": "/etc/passwd"}, "hidden": []})
    with contextlib.closing(sqlite3.connect(folder / ".paddock/ledger.sqlite")) as ledger, ledger:
        ledger.execute("update runs set run = 'planted-run', given = ?", [given])
        ledger.execute("update outputs set path = '/etc/passwd'")
    if os.getuid() == 0:
        for at in (folder, *folder.rglob("*")):
            os.lchown(at, SECOND_USER, SECOND_USER)
    return folder


def all_of(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what would change if something were opened for writing, changed or removed."""
    facts = ((file, file.lstat()) for file in (folder, *sorted(folder.rglob("*"))))
    return {file: (at.st_mode, at.st_mtime_ns, at.st_ctime_ns) for file, at in facts}


@pytest.mark.parametrize(
    "command",
    [
        "runs", "runs --json", "logs", "logs planted-run", "clean", "clean --older-than 0s",
        "why out/copy.txt", "why inbox/deep", "review --list .", "run --resume planted-run", "plan",
        "graph pipeline.yaml", "run",
    ],
)  # fmt: skip
def test_no_command_believes_or_changes_what_lies_among_documents(
    world: World, planted: Path, command: str
) -> None:
    before = all_of(planted)
    done = invoke(*command.split())
    assert "planted-run" not in done.stdout
    assert done.stderr.count(f"{planted / '.paddock'} is not used") <= 1
    assert all_of(planted) == before
    assert "root:" not in (world.folder / "out/copy.txt").read_text()


def test_no_page_shows_what_lies_among_documents(world: World, planted: Path) -> None:
    with served(world.folder) as address, signed_in(address) as client:
        for page in ("/ui/pipelines", "/ui/runs", "/ui/runs?show=failed", "/review"):
            assert "planted-run" not in client.get(page).text
        assert f"{planted / '.paddock'}" in client.get("/ui/runs").text


@pytest.fixture
def tools(world: World) -> Iterator[AgentTools]:
    runs = DetachedRuns(world.folder, {}, 2)
    yield AgentTools(world.folder, {}, None, runs)
    runs.close()


def test_no_tool_of_agents_reads_what_lies_among_documents(
    world: World, planted: Path, tools: AgentTools
) -> None:
    found = tools.runs()
    assert "planted-run" not in str(found[DATA]["runs"])
    assert f"{planted / '.paddock'}" in str(found)
    for call in (tools.status, tools.results):
        with pytest.raises(CommandError):
            call("planted-run")
    with pytest.raises(CommandError):
        tools.read_output("/etc/passwd")


def test_a_ledger_that_is_a_link_leads_no_tool_out_of_its_folder(
    world: World, tools: AgentTools, tmp_path: Path
) -> None:
    outside = World(tmp_path / "outside", COPIES, beside={"inbox/a.txt": "secret"})
    run = outside.run().run
    state = world.folder / "other/.paddock"
    state.mkdir(parents=True, mode=0o700)
    (state / "ledger.sqlite").symlink_to(outside.folder / ".paddock/ledger.sqlite")
    (state.parent / "pipeline.yaml").write_text(COPIES)
    assert run not in str(tools.runs()[DATA]["runs"])
    for call in (tools.reviews, tools.plan):
        with pytest.raises(LedgerError, match="a link leads there"):
            call("other/pipeline.yaml")


@as_root
def test_each_way_to_open_a_pipelines_own_state_refuses_that_of_another_user(
    world: World, tmp_path: Path
) -> None:
    state = world.folder / ".paddock"
    for at in (state, *state.rglob("*")):
        os.lchown(at, SECOND_USER, SECOND_USER)
    before = all_of(state)
    text = f"{state} is not used: it belongs to another user."
    for command in (
        "run", "plan", "runs pipeline.yaml", "logs pipeline.yaml", "clean pipeline.yaml",
        "review --list pipeline.yaml", "review --accept-all pipeline.yaml",
        "schema --write .", "run --resume x pipeline.yaml",
    ):  # fmt: skip
        done = invoke(*command.split())
        assert (done.exit_code != 0, text in done.stderr) == (True, True), (command, done.stderr)
    locks = FolderLocks(tmp_path / "home")
    locks.take(world.folder)
    locks.close()
    assert list((tmp_path / "home/up").rglob("up.lock"))
    assert all_of(state) == before


def in_user_namespace(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `paddock` where each file seems to be of the user `nobody`, and so does it."""
    may = shutil.which("unshare") and subprocess.run(["unshare", "-U", "true"], check=False)
    if not may or may.returncode:
        pytest.skip("NOT TRIED: this system has no user namespaces")
    return subprocess.run(
        ["unshare", "-U", sys.executable, "-m", "paddock.runner", *arguments],
        env={**os.environ, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_where_a_user_namespace_hides_owners_the_person_decides(world: World) -> None:
    refused = in_user_namespace("run")
    line = f'trust_state = ["{world.folder}"]'
    assert (refused.returncode != 0, line in refused.stderr) == (True, True)
    ran = in_user_namespace("run", PADDOCK_TRUST_STATE=str(world.folder.parent))
    assert (ran.returncode, "Wrote no new files." in ran.stdout) == (0, True)


def test_where_owners_mean_nothing_no_first_ledger_is_begun_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, COPIES, beside={"inbox/a.txt": "ferry"})
    monkeypatch.chdir(tmp_path)
    assert in_user_namespace("run").returncode != 0
    assert not (tmp_path / ".paddock").exists() and not (tmp_path / "out").exists()
    assert in_user_namespace("run", PADDOCK_TRUST_STATE=str(tmp_path)).returncode == 0
    assert world.run().status == "completed"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda at: at.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", ["ledger.sqlite", "runs/{run}.jsonl", "locks", "ledger.lock"])
def test_a_pipe_a_folder_or_a_device_in_place_of_a_file_holds_nothing_up(
    world: World, make: Callable[[Path], None], name: str
) -> None:
    with Ledger(world.folder / ".paddock", is_readonly=True) as ledger:
        (run,) = RunStore(ledger).run_names()
    at = world.folder / ".paddock" / name.format(run=run)
    shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
    make(at)
    for command in ("runs", "logs", "clean", "why out/copy.txt", "run"):
        ended = invoke(*command.split())
        assert isinstance(ended.exception, SystemExit | None), (command, ended.exception)
