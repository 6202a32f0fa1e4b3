"""Decode one picture, and print by how many bytes the most memory of this process grew."""

import resource
import sys
from pathlib import Path

from paddock.engine.llama.library import quiet_logs
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.vision import Projector
from tests.fakes.eyes import square


def most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    quiet_logs()
    model, mmproj, picture = map(Path, sys.argv[1:])
    projector = Projector(Model(model), mmproj, n_threads=1, n_pass_tokens=64, uses_gpu=False)
    projector.look(square(7))
    data = picture.read_bytes()
    before = most_bytes()
    projector.look(data)
    print(most_bytes() - before)


if __name__ == "__main__":
    main()
