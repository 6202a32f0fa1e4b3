from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.workers import frames

HEADS = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text()))


@given(HEADS, st.binary())
def test_what_is_packed_is_read(head: frames.Head, body: bytes) -> None:
    head = frames.read(io.BytesIO(frames.pack(head)))[0]  # what UTF-8 cannot say is replaced
    assert frames.read(io.BytesIO(frames.pack(head, body))) == (head, body)


@given(HEADS, st.binary(), st.data())
def test_a_broken_pipe_is_an_end_and_nothing_else(
    head: frames.Head, body: bytes, data: st.DataObject
) -> None:
    raw = frames.pack(head, body)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(frames.Closed):
        frames.read(io.BytesIO(cut))

    async def read() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(cut)
        stream.feed_eof()
        await frames.read_async(stream)

    with pytest.raises(frames.Closed):
        asyncio.run(read())


def test_a_frame_of_nonsense_lengths_is_refused() -> None:
    with pytest.raises(frames.Closed):
        frames.read(io.BytesIO(b"\xff" * 64))
