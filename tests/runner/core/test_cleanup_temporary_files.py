"""What a killed run left half written goes with the next run, and nothing else does."""

import os
import subprocess
import sys
import time
from pathlib import Path

from paddock.engine.system.files import TEMPORARY_SUFFIX
from tests.forked import ForkServer
from tests.runner.core.test_interruptions import start
from tests.runner.world import World


def left(folder: Path, name: str) -> Path:
    """Leave a file aside as a killed process does, a minute ago."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".{name}.1234abcd{TEMPORARY_SUFFIX}"
    file.write_text("half")
    os.utime(file, (file.stat().st_mtime - 60,) * 2)
    return file


def killed_in_the_middle(forks: ForkServer, world: World) -> None:
    """Kill a run that holds the folder, and waits for an answer."""
    world.write("inbox/new.txt", "This document is new.")
    process = start(forks, world, n_free=0)
    while not list((world.folder / ".paddock/locks").glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_the_run_after_a_kill_sweeps_outputs_and_objects(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=2)
    world.run()
    killed_in_the_middle(fork_server, world)
    ours = [left(tmp_path / "out", "0.txt"), left(tmp_path / ".paddock/objects", "0" * 64)]
    elsewhere = left(tmp_path / "notes", "mine.txt")
    assert world.run().status == "completed"
    assert [file.exists() for file in ours] == [False, False]
    assert elsewhere.exists()


def test_what_was_begun_in_the_last_second_is_swept_too(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=2)
    world.run()
    killed_in_the_middle(fork_server, world)
    begun = left(tmp_path / "out", "0.txt")
    os.utime(begun, (time.time() + 0.5,) * 2)  # by the time that the run ends it is young
    assert world.run().status == "completed"
    assert not begun.exists()


def test_a_run_after_one_that_ended_in_order_looks_for_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=1)
    world.run()
    file = left(tmp_path / "out", "0.txt")
    world.run()
    assert file.exists()


HOLDS = """
import sys, time
from pathlib import Path
from paddock.engine.system.files import TemporaryFile
TemporaryFile.written(Path(sys.argv[1]), b"half")
print("held", flush=True)
time.sleep(60)
"""


def test_what_another_process_is_writing_stays(tmp_path: Path, fork_server: ForkServer) -> None:
    world = World(tmp_path, n_documents=1)
    world.run()
    killed_in_the_middle(fork_server, world)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "out/other.txt")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        (file,) = (tmp_path / "out").glob(f".*{TEMPORARY_SUFFIX}")
        os.utime(file, (file.stat().st_mtime - 60,) * 2)
        world.run()
        assert file.exists()
    finally:
        other.kill()
        other.communicate()
