from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.workers import worker_protocol

HEADS = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text()))


@given(HEADS, st.binary())
def test_what_is_packed_is_read(head: worker_protocol.FrameHead, body: bytes) -> None:
    head = worker_protocol.read_frame(io.BytesIO(worker_protocol.pack_frame(head)))[
        0
    ]  # what UTF-8 cannot say is replaced
    assert worker_protocol.read_frame(io.BytesIO(worker_protocol.pack_frame(head, body))) == (
        head,
        body,
    )


@given(HEADS, st.binary(), st.data())
def test_a_broken_pipe_is_an_end_and_nothing_else(
    head: worker_protocol.FrameHead, body: bytes, data: st.DataObject
) -> None:
    raw = worker_protocol.pack_frame(head, body)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(worker_protocol.PipeClosed):
        worker_protocol.read_frame(io.BytesIO(cut))

    async def read() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(cut)
        stream.feed_eof()
        await worker_protocol.read_frame_async(stream)

    with pytest.raises(worker_protocol.PipeClosed):
        asyncio.run(read())


def test_a_frame_of_nonsense_lengths_is_refused() -> None:
    with pytest.raises(worker_protocol.PipeClosed):
        worker_protocol.read_frame(io.BytesIO(b"\xff" * 64))
