"""Write LoRA adapters of rank 1 as GGUF files, small enough for a test."""

from pathlib import Path

import numpy as np

from tests.fakes.gguf import Value, write_gguf
from tests.fakes.tiny import Matrices, fill


def write_adapter(
    path: Path,
    tensor: str,
    n_in: int,
    n_out: int,
    *,
    strength: float,
    architecture: str = "llama",
    more: dict[str, Value] | None = None,
) -> Path:
    """Write an adapter that adds a random matrix of rank 1 to one tensor; 0 adds nothing."""
    random = np.random.default_rng(7)
    matrices: Matrices = {
        f"{tensor}.lora_a": random.standard_normal((1, n_in)),
        f"{tensor}.lora_b": strength * random.standard_normal((n_out, 1)),
    }
    values: dict[str, Value] = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "adapter.type": "lora",
        "adapter.lora.alpha": 1.0,
        **(more or {}),
    }
    axes = {name: (rows.shape[1], rows.shape[0]) for name, rows in matrices.items()}
    return fill(write_gguf(path, values, axes), matrices)
