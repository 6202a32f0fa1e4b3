"""A process that compares two models on bills; it writes down each prompt that it asks.

python -m tests.runner.compare.comparing FOLDER [MOST]: after so many answers it waits to be killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from paddock.engine.request import ChatRequest
from tests.runner.compare.bills import Bills, clerk


def main(folder: Path, most: int = 1000) -> None:
    left = iter(range(most))
    with (folder / "asked.log").open("a", encoding="utf-8") as log:

        def answer(request: ChatRequest) -> str:
            log.write(f"{request.model.ref} {request.messages[-1].content}\n")
            log.flush()
            time.sleep(0.02 if next(left, None) is not None else 600)
            return clerk(request)

        bills = Bills(folder, answer=answer)
        runs = bills.runs(models=("clerk=small,big",))
    assert all(run.fault is None and len(run.items) == len(runs[0].items) for run in runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
