"""The process that runs are forked from: what it has imported, and what it can be asked."""

import subprocess
import sys

from tests.waiting import PATIENCE_S

UP = """
import importlib, sys
for module in ("cli.commands.up", "cli.console_serving", "schedule.up"):
    importlib.import_module(f"paddock.runner.{module}")
print("prefect" in sys.modules)
"""
CALLS = """
import os, signal, sys, time
from paddock.runner.workers.fork_server import ForkServer

def kill_server():
    server = os.getppid()
    os.kill(server, signal.SIGKILL)
    while os.getppid() == server:
        time.sleep(0.01)

forks = ForkServer()
forks.fork()
calls = [
    ("os.path:basename", "/a/b"),
    ("os.path:getsize", "/none"),
    ("os:abort",),
    ("builtins:eval", "'prefect' in __import__('sys').modules"),
    ("__main__:kill_server",),
    ("builtins:eval", "'prefect' in __import__('sys').modules"),
]
for call in calls:
    try:
        print(forks.call(*call))
    except RuntimeError as error:
        print(f"error: {error}")
print("here:", "prefect" in sys.modules)
"""


def _printed(code: str) -> list[str]:
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_paddock_up_holds_no_prefect() -> None:
    assert _printed(UP) == ["False"]


def test_what_runs_are_forked_from_imports_prefect_by_itself_and_is_started_again_once_killed() -> (
    None
):
    assert _printed(CALLS) == [
        "b",
        "error: [Errno 2] No such file or directory: '/none'",
        "error: its process was killed",
        "True",
        "None",
        "True",
        "here: False",
    ]
