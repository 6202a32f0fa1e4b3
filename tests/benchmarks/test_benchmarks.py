"""The benchmarks' pure parts; what they measure is for a person to start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks import peers, runner
from tests.benchmarks.harness import Child, circumstances, measure, medians, table


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, seconds: float) -> float:
        turns.append(name)
        return seconds

    found = medians(
        {"a": lambda number: contender("a", number), "b": lambda _: contender("b", 7.0)}, 3
    )
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": 1, "b": 7.0}


def test_a_child_is_measured_from_outside(tmp_path: Path) -> None:
    child = measure([sys.executable, "-c", "print(len(b'x' * 50_000_000))"], cwd=tmp_path)
    assert child.stdout.strip() == "50000000"
    assert child.peak_bytes > 50_000_000
    assert child.seconds > 0


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        measure([sys.executable, "-c", "raise SystemExit(1)"], cwd=tmp_path)


def test_a_table_and_its_circumstances_can_be_pasted_into_markdown() -> None:
    assert table(["who", "n"], [["ours", 1500], ["theirs", 0.25]]).splitlines() == [
        "| who | n |",
        "|---|--:|",
        "| ours | 1,500 |",
        "| theirs | 0.25 |",
    ]
    assert circumstances(rounds=3, tracked="--local").endswith("rounds 3, tracked --local.")


def test_missing_peers_come_with_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_PEERS", str(tmp_path))
    with pytest.raises(peers.PeersMissing) as raised:
        peers.find()
    assert str(raised.value) == (
        f"{tmp_path} has no llama-server and no llama-batched-bench. Build them once with "
        f"`uv run python tests/benchmarks/peers.py`, or set PADDOCK_PEERS to the folder of "
        f"binaries that you have."
    )


def test_the_runners_own_cost_is_told_for_a_document_and_step(tmp_path: Path) -> None:
    runner.make(tmp_path, 101)
    assert len(list((tmp_path / "inbox").rglob("*.txt"))) == 101
    assert runner.row("first run", Child(6.0, 10**8, ""), 1000) == [
        "first run", 6.0, 2.0, 100.0
    ]  # fmt: skip
