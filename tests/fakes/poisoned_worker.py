"""A real worker that dies of a chat with the word POISON.

It calls `abort()` when it takes such a chat or, with the argument `decode`, kills itself when it
computes the prompt: only for models whose tokens are bytes (`tests.fakes.tiny`).
"""

from __future__ import annotations

import os
import signal
import sys

from paddock.engine.llama.llama_context import Context
from paddock.engine.workers import worker_main, worker_protocol
from paddock.engine.workers.chat_service import ChatService

_take_chat = ChatService._take_chat
_decode = Context.decode


def _dying(self: ChatService, request_id: int, order: worker_protocol.ChatOrder) -> None:
    if any("POISON" in message.content for message in order.request.messages):
        os.abort()
    _take_chat(self, request_id, order)


def _deadly(self: Context, tokens: object, *arrays: object, **more: object) -> int:
    if tokens is not None and b"POISON" in bytes(token & 255 for token in tokens.tolist()):  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    return _decode(self, tokens, *arrays, **more)  # type: ignore[arg-type]


if __name__ == "__main__":
    if sys.argv[1:] == ["decode"]:
        Context.decode = _deadly  # type: ignore[method-assign]
    else:
        ChatService._take_chat = _dying  # type: ignore[method-assign]
    worker_main.main()
    os._exit(0)
