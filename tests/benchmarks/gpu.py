"""On a graphics device, whatever build of llama-cpp-python is importable: one command, one table.

python3 tests/benchmarks/gpu.py --model FILE.gguf --server PATH --batched-bench PATH

Raw prefill and decode with 1, 16, 64 and 128 sequences against `llama-batched-bench`, then
documents a minute of a job, a chat during it, and more documents than the cache holds, each against
llama-server; whether equal fingerprints mean equal answers, and memory is as foreseen. Every
part has a time limit; together they end within 8 minutes. `--quick --layers 0` is for a processor:
it shows that the command works.

It runs from a clone too, with nothing of Paddock installed. Python needs numpy, psutil, jinja2,
prometheus-client, llguidance and llama-cpp-python (with typing-extensions and diskcache);
nothing is fetched from anywhere.
"""

import argparse
import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
ROOMS = ("pipelines", "runner", "steps", "engine", "examples")
NEEDED = ("numpy", "psutil", "jinja2", "prometheus_client", "llguidance", "llama_cpp")

FULL = {
    "sequences": "1,16,64,128",
    "prompt_tokens": 256,
    "answer_tokens": 128,
    "documents": 256,
    "words": 400,
    "slots": "16,64",
    "in_flight": 64,
    "every_ms": 250,
    "job_tokens": 64,
    "cells": 4096,
    "at_once": 16,
}
QUICK = {
    "sequences": "1,4",
    "prompt_tokens": 64,
    "answer_tokens": 8,
    "documents": 4,
    "words": 60,
    "slots": "4",
    "in_flight": 2,
    "every_ms": 1000,
    "job_tokens": 8,
    "cells": 1024,
    "at_once": 6,
}


def main() -> None:
    args = arguments()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"This Python ({sys.executable}) lacks {', '.join(missing)}.")
    make_importable()
    from tests.benchmarks import device

    device.run(args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="smollm2:135m", help="a name, or the path of a GGUF file"
    )
    parser.add_argument("--server", type=Path, help="llama-server; else as peers.py finds it")
    parser.add_argument("--batched-bench", type=Path, help="as --server, for llama-batched-bench")
    parser.add_argument("--layers", type=int, default=-1, help="on the device; -1: all")
    parser.add_argument("--threads", type=int, help="None: the cores that this process may use")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument(
        "--parts", default="raw,job,chat,overflow,fingerprints,rooms", help="some of them"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of our pool"
    )
    for name, value in FULL.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value))
    args = parser.parse_args()
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def make_importable() -> None:
    """Make `paddock` importable from this clone, in the workers too, if it is not installed."""
    sys.path.insert(0, str(HOUSE))
    if importlib.util.find_spec("paddock") is not None:
        return
    folder = Path(tempfile.mkdtemp(prefix="paddock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "paddock").mkdir()
    for room in ROOMS:
        (folder / "paddock" / room).symlink_to(HOUSE / room)
    sys.path.insert(0, str(folder))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}" if before else str(folder)
    importlib.invalidate_caches()


if __name__ == "__main__":
    main()
