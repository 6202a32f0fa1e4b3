"""How many tokens of context a model gets where a request names no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_CTX_TOKENS = 4096
"""Of a chat model that no one asked more of; embedding models get all that they were trained on."""


def context_tokens(
    role: str, n_train_tokens: int, params: Mapping[str, Any], setting_tokens: int | None
) -> int:
    """Return a model's context: its own `num_ctx`, the setting, or the default of its role.

    >>> context_tokens("chat", 2048, {}, None), context_tokens("embed", 512, {}, None)
    (2048, 512)
    >>> context_tokens("chat", 32768, {"num_ctx": 8192}, 1024)
    8192
    """
    own = params.get("num_ctx")
    if isinstance(own, bool) or not isinstance(own, int | float) or not 1 <= own < 2**31:
        own = None
    default = DEFAULT_CTX_TOKENS if role == "chat" else n_train_tokens
    return min(int(own) if own else setting_tokens or default, n_train_tokens)
