"""Vectors of texts, by which labels and examples are chosen for a prompt."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from paddock.engine.request import REQUEST_TEXTS, EmbedRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paddock.engine.request import ModelSpec, Pool, Priority
    from paddock.steps.base import Vector

Matrix: TypeAlias = "NDArray[np.float32]"
Vector8: TypeAlias = str
"""A vector as base64 of a signed byte for each dimension."""
_LEAST_DIMENSIONS = 2
"""Of a vector; while planning, a placeholder has one."""


def inserted_text(params: Any) -> str:
    prompt, texts = getattr(params, "prompt", None), []
    if prompt is not None and hasattr(prompt, "texts"):
        texts = prompt.texts(**getattr(params, "vars", {}))
        texts = texts or [prompt.render(**getattr(params, "vars", {}))]
    texts += [message.content for message in getattr(params, "messages", None) or ()]
    texts += [text for text in (getattr(params, "text", None),) if isinstance(text, str)]
    return max(texts, key=len, default="")


async def embedded(
    pool: Pool,
    model: ModelSpec,
    texts: Sequence[str],
    priority: Priority = "normal",
    total_s: float | None = None,
) -> list[Vector]:
    """Return a vector for each text.

    Raises:
        EngineError: a text cannot be embedded.
    """
    vectors: list[Vector] = []
    for first in range(0, len(texts), REQUEST_TEXTS):
        part = tuple(texts[first : first + REQUEST_TEXTS])
        request = EmbedRequest(model, part, None, priority, total_s, on_overflow="split")
        vectors += (await pool.embed(request)).vectors
    return vectors


def unit_matrix(vectors: Sequence[Vector]) -> Matrix:
    """Return vectors of length 1, a row for each; of one column while a plan lacks some of them."""
    from paddock.steps.llm.extract import unit_rows  # numpy, which other plans do without

    is_known = len({len(vector) for vector in vectors}) == 1
    return unit_rows(vectors if is_known else [(0.0,)] * len(vectors))


def as_vector8(vector: Vector) -> Vector8:
    """Return a vector as bytes: for ranking, its angle is exact enough."""
    most = max(map(abs, vector), default=0.0) or 1.0
    return base64.b64encode(array("b", [round(127 * number / most) for number in vector])).decode()


def matrix_of(vectors: Sequence[Vector8]) -> Matrix | None:
    """Return vectors of length 1, as `unit_matrix`; None: there are none."""
    rows = [array("b", base64.b64decode(vector)) for vector in vectors]
    return unit_matrix(rows) if rows else None


def similarities(vector: Vector8, rows: Matrix | None) -> list[float] | None:
    """Return the cosine similarity of each row; None: rows and vector are of different models."""
    own = array("b", base64.b64decode(vector))
    if len(own) < _LEAST_DIMENSIONS:
        return None
    if rows is None:
        return []
    return (rows @ unit_matrix([own])[0]).tolist() if rows.shape[1] == len(own) else None
