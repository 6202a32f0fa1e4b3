"""Photograph the console's page on models of a busy service, for the guide.

    python tests/recording/models_page.py                # the light one, as the guide has it
    python tests/recording/models_page.py --all /tmp/x   # light, dark and narrow

The service is real and so is what it does: four readers of short stories, and one who embeds. It
needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.settings import PoolSettings
from tests.browser import Page, browser
from tests.live import CHAT, VECTORS, Live
from tests.runner.cli.live_console import TOKEN, console_service

OUT = Path(__file__).with_name("models-page.png")
WIDE, NARROW = (1180, 860), (390, 1700)
READERS = 4
WATCHED_S = 125.0  # so long is looked on before the picture is taken

SYSTEM = "You are a storyteller who writes for children, in plain words and short sentences. " * 4
THINGS = ("ferry", "llama", "boiler", "lighthouse", "orchard", "violin", "glacier", "paddock")


@contextmanager
def traffic(live: Live) -> Iterator[None]:
    """Ask by several clients until the block ends."""
    ends = threading.Event()

    def read(n: int) -> None:
        chance = random.Random(n)
        with live.client() as client:
            while not ends.is_set():
                body = {
                    "model": CHAT,
                    "messages": [
                        {"role": "system", "content": SYSTEM},
                        {"role": "user", "content": f"A story of a {chance.choice(THINGS)}."},
                    ],
                    "max_tokens": chance.randint(20, 120),
                    "stream": True,
                }
                path = "/v1/chat/completions" if n % 2 else "/api/chat"
                if n % 2 == 0:
                    body["options"] = {"num_predict": body.pop("max_tokens")}
                with client.stream("POST", path, json=body) as answer:
                    for _ in answer.iter_raw():
                        if ends.is_set() or chance.random() < 0.0004:
                            break  # some leave before the end
                ends.wait(chance.uniform(0.1, 5))

    def embed() -> None:
        with live.client() as client:
            while not ends.is_set():
                texts = [f"The {thing} is older than it looks." for thing in THINGS]
                client.post("/api/embed", json={"model": VECTORS, "input": texts})
                ends.wait(7)

    def err() -> None:
        with live.client() as client:
            while not ends.wait(25):
                client.post("/api/chat", json={"model": "llama3.2:3b", "messages": []})

    threads = [threading.Thread(target=read, args=(n,)) for n in range(READERS)]
    threads += [threading.Thread(target=embed), threading.Thread(target=err)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def photograph(page: Page, scheme: str, size: tuple[int, int], scale: float = 1) -> bytes:
    page.prefer(scheme)
    page.resize(*size, scale)
    time.sleep(1.5)
    return page.photograph()


def smaller(picture: bytes) -> bytes:
    """Return it with a palette of its own."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    reading = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    reading.add_argument("--all", type=Path, metavar="DIR", help="every look, into a folder")
    reading.add_argument("--seconds", type=float, default=WATCHED_S)
    told = reading.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        console_service(Path(folder), PoolSettings(num_parallel=8)) as live,
        browser() as chromium,
        traffic(live),
    ):
        page = chromium.page(f"{live.url}/ui/models", width=WIDE[0], height=WIDE[1])
        page.ask("document.getElementById('token').focus()")
        page.type(TOKEN)
        page.press("Enter", text="\r")
        time.sleep(told.seconds)
        pictures = {"light": photograph(page, "light", WIDE)}
        if told.all:
            pictures["dark"] = photograph(page, "dark", WIDE)
            pictures["narrow"] = photograph(page, "light", NARROW)
            pictures["narrow-dark"] = photograph(page, "dark", NARROW)
    for name, picture in pictures.items():
        file = told.all / f"{name}.png" if told.all else OUT
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(smaller(picture))
        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
