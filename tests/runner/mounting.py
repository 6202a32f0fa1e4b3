"""Code in name spaces of its own, in which it may mount small disks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def run_with_mounts(code: str, *arguments: str | Path) -> str:
    """Run code that mounts; return what it printed. Skip the test where that is not allowed."""
    may = shutil.which("unshare") and subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True, check=False,
    )  # fmt: skip
    if not may or may.returncode:
        pytest.skip("NOT TRIED: this system lets no user mount a small disk")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
