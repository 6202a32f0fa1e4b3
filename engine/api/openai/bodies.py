"""Read the body of a request to OpenAI's endpoints: JSON, or JSON packed with zstd.

Codex and others pack what they send to Responses. What is unpacked counts against the same limit
as what is sent, so that a small body cannot become a huge one.
"""

from __future__ import annotations

import asyncio
import importlib.util

from starlette.requests import Request

from paddock.engine.api.bodies import parse_object, read_body, read_json
from paddock.engine.api.errors import ApiError

from .fields import Fields


async def read_fields(request: Request, max_bytes: int) -> Fields:
    """Give the fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object; 413, it is too large; 415, it is packed in a way that
            cannot be read here.
    """
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing in ("", "identity"):
        return Fields(await read_json(request, max_bytes=max_bytes))
    if packing != "zstd":
        raise _unread(packing)
    packed = await read_body(request, max_bytes)
    return Fields(await asyncio.to_thread(lambda: parse_object(_unpacked(packed, max_bytes))))


def _unread(packing: str) -> ApiError:
    return ApiError(
        415,
        f"bodies with `Content-Encoding: {packing[:40]}` are not read here; send plain JSON",
        {"Accept-Encoding": "zstd" if _has_zstd() else "identity"},
    )


def _has_zstd() -> bool:
    return importlib.util.find_spec("zstandard") is not None


def _unpacked(packed: bytes, max_bytes: int) -> bytes:
    """Unpack a zstd body.

    Raises:
        ApiError: it is none, is larger than is taken, or cannot be unpacked on this machine.
    """
    if not _has_zstd():
        raise _unread("zstd")
    import zstandard

    parts, size = [], 0
    try:
        for part in zstandard.ZstdDecompressor().read_to_iter(packed):
            size += len(part)
            if size > max_bytes:
                raise ApiError(413, f"request body too large: at most {max_bytes} bytes are taken")
            parts.append(part)
    except zstandard.ZstdError as error:
        raise ApiError(400, f"the body is not zstd: {error}") from None
    return b"".join(parts)
