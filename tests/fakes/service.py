"""A live service as a process of its own, so that it can be killed: `python -m … FOLDER`.

Says its address, and goes on until its input ends.
"""

import sys
from pathlib import Path

from tests.live import live_service

if __name__ == "__main__":
    with live_service(Path(sys.argv[1])) as live:
        print(live.url, flush=True)
        sys.stdin.read()
