"""Try llama.cpp's kernels for the processor on trial models. Run as a module, since it may crash.

The arguments are a fallback (`workers.fallback`) and a number of threads. A broken build ends the
process by a signal.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from paddock.engine.native import library
from paddock.engine.native.context import ContextOptions
from paddock.engine.native.model import Model
from paddock.engine.native.warm_up import WARM_UP_CELLS, warm_up

from . import trial

# AMX has kernels of its own for these; repacking has some for the first ones.
FORMATS = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "F16")


def main() -> None:
    """Decode a few tokens with a small model in each format."""
    fallback, n_threads = int(sys.argv[1]), int(sys.argv[2])
    library.quiet_logs()
    options = ContextOptions(
        n_ctx_tokens=WARM_UP_CELLS,
        n_batch_tokens=WARM_UP_CELLS,
        n_seq_max=1,
        n_threads=1 if fallback >= 3 else n_threads,
        flash_attention="off" if fallback >= 2 else "auto",
    )
    with tempfile.TemporaryDirectory(prefix="paddock-trial-") as folder:
        for name in FORMATS:
            path = Path(folder) / f"{name}.gguf"
            trial.write(path, name)
            model = Model(path, n_gpu_layers=0, uses_extra_buffers=not fallback)
            warm_up(model, options)
            model.close()


if __name__ == "__main__":
    main()
