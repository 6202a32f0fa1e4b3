"""Libraries of optional extras: whether they are installed, and what to do where they are not."""

from __future__ import annotations

import importlib.util

NEEDS_LANCEDB = (
    "vector stores need LanceDB, which is not installed.",
    "Install it: pip install 'paddock-llm[retrieval]'.",
)
"""Sentence and remedy."""
_NEEDS_MCP = (
    "MCP servers need the package 'mcp', which is not installed.",
    "Install it: `pip install 'paddock-llm[mcp]'`.",
)


def missing_lancedb() -> tuple[str, str] | None:
    """Return sentence and remedy if the library is not installed; imports nothing."""
    return NEEDS_LANCEDB if importlib.util.find_spec("lancedb") is None else None


def missing_mcp_library() -> tuple[str, str] | None:
    """Return sentence and remedy if the library is not installed; imports nothing."""
    return _NEEDS_MCP if importlib.util.find_spec("mcp") is None else None
