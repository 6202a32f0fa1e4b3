"""A KV cache of each type, with the bundled model."""

from pathlib import Path

import numpy as np
import pytest

from paddock.engine.gguf import read_header
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.memory.model_layout import cell_bytes
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import CacheType

N_CELLS = 512
LEAST_CORRELATION: dict[CacheType, float] = {"f16": 0.99, "q8_0": 0.99, "q4_0": 0.95}
"""Of next-token logits with those of an F16 cache without flash attention."""


def logits_after(model: Model, kind: CacheType, is_flash: bool = True) -> tuple[np.ndarray, int]:
    """Return the logits after a sentence that is read in two steps, and the cells' bytes."""
    options = ContextOptions(
        n_ctx_tokens=N_CELLS,
        n_batch_tokens=64,
        n_seq_max=1,
        n_threads=1,
        flash_attention="auto" if is_flash else "off",
        kv_cache_type=kind,
    )
    tokens = model.tokenise(
        "Paris is the capital of France, and Berlin is the capital of",
        with_special=False,
        parse_special=False,
    )
    with Context(model, options) as context:
        for part in np.split(np.arange(len(tokens), dtype=np.int32), [5]):
            output_mask = (part == part[-1]).astype(np.int8)
            context.decode(tokens[part], part, np.zeros(len(part), np.int32), output_mask)
        return np.array(context.logits(1)[0]), sum(context.buffers.cells.values())


@pytest.mark.parametrize("kind", LEAST_CORRELATION)
def test_a_cache_of_each_type_is_as_large_as_planned_and_can_be_read(
    model: Model, kind: CacheType, tmp_path: Path
) -> None:
    exact, _ = logits_after(model, "f16", is_flash=False)
    logits, n_bytes = logits_after(model, kind)
    header = read_header(Path(ModelFinder(tmp_path, tmp_path).find("smollm2:135m").path))
    assert n_bytes == pytest.approx(N_CELLS * cell_bytes(header, kind), rel=0.01)
    assert model.piece(int(logits.argmax())) == b" Germany"
    assert np.corrcoef(exact, logits)[0, 1] > LEAST_CORRELATION[kind]
