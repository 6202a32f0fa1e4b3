"""A real worker that calls `abort()` when it takes a chat with the word POISON."""

from __future__ import annotations

import os

from paddock.engine.workers import worker_main, worker_protocol
from paddock.engine.workers.chat_service import ChatService

_take_chat = ChatService._take_chat


def _dying(self: ChatService, request_id: int, order: worker_protocol.ChatOrder) -> None:
    if any("POISON" in message.content for message in order.request.messages):
        os.abort()
    _take_chat(self, request_id, order)


if __name__ == "__main__":
    ChatService._take_chat = _dying  # type: ignore[method-assign]
    worker_main.main()
    os._exit(0)
