"""The same random histories on two checkouts: runs, plans, reasons and outputs have to be equal.

    python -m tests.runner.core.against --against ../earlier --histories 100 --seed 1
    python -m tests.runner.core.against --against ../earlier --ways kills --seed 7 --histories 1

Each checkout plays them (`played_history`) with its own interpreter, product, worlds and fakes, and
records after each run what people and machines are told. The first record that differs is printed.
With `--kept` the records of the other checkout are kept in a folder for the next time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WAYS = ("edits", "reviews", "moving", "filing", "hot", "servers", "kills")
HERE = Path(__file__).resolve()
AT_ONCE = 10
"""Histories of one process: its imports take as long as one of them."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random histories on two checkouts.")
    parser.add_argument("--against", type=Path, required=True, help="the other checkout")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--histories", type=int, default=10, help="of each seed and those on it")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--kept", type=Path, help="where the other's records are kept")
    parser.add_argument("--most", type=int, default=1, help="differences of a history to print")
    given = parser.parse_args(words)
    seeds = [first + n for first in given.seed for n in range(given.histories)]
    histories = [f"{way}-{seed}" for seed in seeds for way in given.ways]
    n_bad = 0
    for first in range(0, len(histories), AT_ONCE):
        some = histories[first : first + AT_ONCE]
        theirs = records_of(given.against.resolve(), some, given.kept)
        ours = records_of(HERE.parents[3], some)
        for name in some:
            if found := [*differences(theirs[name], ours[name])]:
                n_bad += 1
                print(f"{name}: {len(found)} differences", *found[: given.most], sep="\n  ")
        sys.stdout.flush()
    print(f"{len(histories)} histories, {n_bad} of them differ")
    return min(n_bad, 1)


def records_of(
    checkout: Path, histories: Sequence[str], kept: Path | None = None
) -> dict[str, list[Any]]:
    """Return the records of histories by their names, as a checkout plays them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = kept or folder / "records"
        place.mkdir(exist_ok=True, parents=True)
        unknown = [each for each in histories if not (place / each).exists()]
        if unknown:
            environ = {
                **os.environ,
                "CI": "1",
                "PYTHONPATH": str(checkout),
                "PADDOCK_HOME": str(folder / "home"),
                "PADDOCK_HOST": "127.0.0.1:1",
                "PADDOCK_TRUST_STATE": tempfile.gettempdir(),
            }
            python, player = checkout / ".venv/bin/python", HERE.with_name("played_history.py")
            ended = subprocess.run(
                [python, "-P", player, place, *unknown], cwd=checkout, env=environ, check=False,
                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if ended.returncode:
                raise RuntimeError(f"{checkout}: {ended.stdout}")
        return {each: json.loads((place / each).read_text("utf-8")) for each in histories}


def differences(theirs: Any, ours: Any, at: str = "") -> Iterator[str]:
    """Yield where two records differ, each with what was before it and what is now."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*theirs, *ours)):
            yield from differences(theirs.get(key), ours.get(key), f"{at} · {key}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        for n in range(max(len(theirs), len(ours))):
            was, now = (each[n] if n < len(each) else None for each in (theirs, ours))
            yield from differences(was, now, f"{at} · {n}")
    elif theirs != ours:
        yield f"{at}\n    was {json.dumps(theirs)[:600]}\n    now {json.dumps(ours)[:600]}"


if __name__ == "__main__":
    sys.exit(main())
