"""A real worker whose process gets hardly more memory than it has when it is ready.

Run as a script, with the bytes that it may take from then on.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from paddock.engine.system.frames import FrameHead
from paddock.engine.workers import worker_main
from paddock.engine.workers.chat_service import ChatService

_memory = ChatService.memory


def _limiting(self: ChatService) -> FrameHead:
    """Set the limit when the worker is about to say that it is ready."""
    n_pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        most = n_pages * resource.getpagesize() + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return _memory(self)


if __name__ == "__main__":
    ChatService.memory = _limiting  # type: ignore[method-assign]
    worker_main.main()
    os._exit(0)
