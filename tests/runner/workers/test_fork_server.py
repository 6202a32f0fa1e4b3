"""The process that runs are forked from: what it has imported, and what it can be asked."""

import subprocess
import sys

UP = """
import importlib, sys
for module in ("cli.commands.up", "cli.console_serving", "schedule.up"):
    importlib.import_module(f"paddock.runner.{module}")
print("prefect" in sys.modules)
"""
CALLS = """
import sys
from paddock.runner.workers.fork_server import call_in_fork, start_fork_server
start_fork_server()
calls = {
    "answers": ("os.path", "basename", "/a/b"),
    "raises": ("os.path", "getsize", "/none"),
    "dies": ("os", "_exit", 3),
    "has imported Prefect": ("builtins", "eval", "'prefect' in __import__('sys').modules"),
}
for what, call in calls.items():
    try:
        print(f"{what}: {call_in_fork(*call)}")
    except RuntimeError as error:
        print(f"{what}: error: {error}")
print("here:", "prefect" in sys.modules)
"""


def _printed(code: str) -> list[str]:
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_paddock_up_holds_no_prefect() -> None:
    assert _printed(UP) == ["False"]


def test_what_runs_are_forked_from_imports_prefect_by_itself_and_answers_or_says_why_not() -> None:
    assert _printed(CALLS) == [
        "answers: b",
        "raises: error: [Errno 2] No such file or directory: '/none'",
        "dies: error: its process was killed",
        "has imported Prefect: True",
        "here: False",
    ]
