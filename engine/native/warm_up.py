"""The first decodes of a model: what is broken crashes here, before a request is let in."""

from __future__ import annotations

import numpy as np

from .context import Context, ContextOptions
from .library import supports_gpu
from .model import Model

WARM_UP_CELLS = 256  # llama.cpp pads to it
# Kernels for several tokens differ from those for one: AMX tiles are configured from two on,
# repacked weights take four at once.
_N_TOKENS = 8


def warm_up(model: Model, options: ContextOptions) -> int:
    """Decode a few tokens at once, and then one, in a context of its own; return how many.

    On a graphics device a prompt goes first: its kernels are loaded at their first use, and the
    first request would wait for that.

    Raises:
        LoadFailed: the context cannot be made.
        DecodeFailed: llama.cpp cannot compute.
    """
    with Context(model, options) as context:
        if supports_gpu() and not options.embeds:
            _decode(context, 0, WARM_UP_CELLS)
            context.clear()
        _decode(context, 0, _N_TOKENS)
        if not options.embeds:
            _decode(context, _N_TOKENS, 1)
    return _N_TOKENS


def _decode(context: Context, start: int, n_tokens: int) -> None:
    wanted = np.full(n_tokens, context.options.embeds, np.int8)
    wanted[-1] = 1
    pos = np.arange(start, start + n_tokens, dtype=np.int32)
    tokens = np.zeros(n_tokens, np.int32)
    context.decode(tokens, pos, np.zeros(n_tokens, np.int32), wanted)
