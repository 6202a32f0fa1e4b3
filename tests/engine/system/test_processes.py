"""Subprocesses: output, ends, and processes that answer lines."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from paddock.engine.system.processes import LineProcess, OutputTooLarge, run, run_blocking

ECHO = """
import json, os, sys
for line in sys.stdin:
    order = json.loads(line)
    if order == "die":
        os._exit(1)
    print(json.dumps({"pid": os.getpid(), "order": order}), flush=True)
"""


def test_a_program_gets_its_input_and_returns_both_outputs() -> None:
    code = "import sys; print(sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    ended = asyncio.run(
        run([sys.executable, "-c", code], environ=os.environ, stdin=b"hello", most_bytes=100)
    )
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"hello\n", b"err\n")


def test_too_much_output_and_a_missing_program_raise() -> None:
    with pytest.raises(OutputTooLarge):
        asyncio.run(run(["yes"], environ=os.environ, most_bytes=1000))
    with pytest.raises(FileNotFoundError) as failed:
        asyncio.run(run(["no-such-program"], environ=os.environ, most_bytes=1000))
    assert failed.value.filename is None


def test_a_blocking_run_that_is_late_or_missing_is_none() -> None:
    assert run_blocking(["no-such-program"], timeout_s=5) is None
    assert run_blocking(["sleep", "60"], timeout_s=0.05) is None
    ended = run_blocking(["sh", "-c", "echo out; exit 2"], timeout_s=60)
    assert ended is not None
    assert (ended.code, ended.stdout) == (2, b"out\n")


def test_a_line_process_answers_and_is_restarted_where_it_died() -> None:
    process = LineProcess([sys.executable, "-c", ECHO])
    try:
        first = process.ask({"n": 1}, 60)
        assert first is not None
        assert first["order"] == {"n": 1}
        assert process.is_running
        assert process.ask("die", 60) is None  # type: ignore[arg-type]
        assert not process.is_running
        second = process.ask({"n": 2}, 60)
        assert second is not None
        assert second["pid"] != first["pid"]
    finally:
        process.close()
