"""Run pytest; tests that failed run once more, alone and one after the other. The repeat decides.

With `-n 8` they share two cores with servers, browsers and processes that are killed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAILED = Path(".pytest_cache/v/cache/lastfailed")
MOST = 30  # more are no chance, and would take hours one after the other


class _RepeatNotice:
    def __init__(self, failed: list[str]) -> None:
        self._failed = failed

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        words = f"{len(self._failed)} FAILED IN THE WHOLE RUN, REPEATED ALONE"
        terminalreporter.section(words, sep="!", red=True)
        terminalreporter.write("".join(f"{name}\n" for name in self._failed))


def main(arguments: list[str]) -> int:
    FAILED.unlink(missing_ok=True)  # of an earlier run
    status = subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    failed = json.loads(FAILED.read_text()) if FAILED.exists() else {}
    failed = {name for name in failed if "::" in name}  # not a process that collects other tests
    if status != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed) <= MOST:
        return status
    again = ["-n", "0", "--last-failed", "--last-failed-no-failures", "none"]
    return int(pytest.main([*arguments, *again], plugins=[_RepeatNotice(sorted(failed))]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
