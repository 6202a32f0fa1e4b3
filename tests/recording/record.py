"""Record the first run in a real terminal, for the README.

    uv run --with pyte python tests/recording/record.py             # a minute: the models work

The commands run in a pseudo-terminal, in an empty home; what they write is real. The typing is
played, and waiting is shortened, by as much as the corner says. A command that fails, or does not
say what its scene claims, ends the recording and nothing is written.
"""

from __future__ import annotations

import importlib
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.recording.film import COLUMNS, ROWS, Frame, Picture, Run, look, runs, shorten, svg, thin

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "first-run"
OUT = Path(__file__).with_name("first-run.svg")
TITLE = "first run · no network, {cores} CPU cores · waiting is shortened"

SAMPLE_S = 0.125  # the live table draws eight times a second
QUIET_S = 0.02  # a picture is taken between two drawings, never within one
KEYS, KEYS_S = 2, 0.09  # letters that appear at once, and for how long


@dataclass(frozen=True, slots=True)
class Scene:
    command: str
    claim: str
    hold_s: float


SCENES = (
    Scene("paddock run examples/first-run", "Nothing failed.", 4.0),
    Scene("cat examples/first-run/out/invoices.csv", "boatyard.pdf,2024-118", 4.0),
    Scene("grep -A 6 '## Mail' examples/first-run/out/DIGEST.md", "the fog bell", 5.0),
    Scene("paddock run examples/first-run", " 0 model calls", 3.5),
    Scene('echo "P.S. The boiler is mended." >> examples/first-run/inbox/boiler.txt', "", 0.5),
    Scene("paddock plan examples/first-run", "(content changed)", 5.0),
    Scene("paddock run examples/first-run", "items fresh", 5.0),
)


class Terminal:
    """A pseudo-terminal in an empty home; what is written to it is followed on a screen."""

    def __init__(self, home: Path) -> None:
        # Loaded by its name: it is no dependency of ours, and is there only with `--with pyte`.
        pyte: Any = importlib.import_module("pyte")
        self._screen = pyte.Screen(COLUMNS, ROWS)
        _show_dim_as_grey(self._screen)
        self._stream = pyte.ByteStream(self._screen)
        self._home = home
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (ROWS, COLUMNS))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._ours)
        os.close(self._theirs)

    def play(self, scene: Scene) -> Iterator[Frame]:
        """Type a scene's command, carry it out, let the result stand; waiting is shortened."""
        yield from self._type(scene.command)
        yield from thin(shorten(tuple(self._carry_out(scene))))
        yield Frame(scene.hold_s, self._picture())

    def _type(self, command: str) -> Iterator[Frame]:
        self._stream.feed(b"\x1b[1;32m$\x1b[0m ")
        yield Frame(0.5, self._picture(has_cursor=True))
        for start in range(0, len(command), KEYS):
            self._stream.feed(command[start : start + KEYS].encode())
            yield Frame(KEYS_S, self._picture(has_cursor=True))
        yield Frame(0.4, self._picture(has_cursor=True))
        self._stream.feed(b"\r\n")

    def _carry_out(self, scene: Scene) -> Iterator[Frame]:
        """Run a command to its end; give every picture with the time that it stood."""
        process = self.start(scene.command)
        began, picture, said, is_over = time.monotonic(), self._picture(), b"", False
        while not is_over:
            is_over = process.poll() is not None  # asked first: what it said last is still read
            said += self._follow(SAMPLE_S)
            now, seen = time.monotonic(), self._picture()
            if seen != picture or is_over:
                yield Frame(now - began, picture)
                began, picture = now, seen
        if process.returncode or scene.claim not in said.decode():
            screen = "\n".join(self._screen.display).rstrip()
            sys.exit(f"{scene.command!r} failed or did not say {scene.claim!r}:\n{screen}")

    def start(self, command: str) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self._home), "LANG": "C.UTF-8"}
        env |= {"TERM": "xterm-256color", "PADDOCK_HOME": str(self._home / ".paddock")}
        tty = self._theirs
        return subprocess.Popen(
            ["sh", "-c", command], cwd=self._home, env=env, stdin=tty, stdout=tty, stderr=tty
        )

    def _follow(self, seconds: float) -> bytes:
        said, until = b"", time.monotonic() + seconds
        while True:
            if select.select([self._ours], [], [], QUIET_S)[0]:
                data = os.read(self._ours, 65536)
                self._stream.feed(data)
                said += data
            elif time.monotonic() >= until:
                return said

    def _picture(self, *, has_cursor: bool = False) -> Picture:
        buffer, cursor = self._screen.buffer, self._screen.cursor
        rows = [[buffer[y][x] for x in range(COLUMNS)] for y in range(ROWS)]
        lines = [runs((cell.data, _look(cell)) for cell in row) for row in rows]
        if has_cursor:
            lines[cursor.y] += (Run(cursor.x, "█", look("brightblack")),)
        return tuple(lines)


def _show_dim_as_grey(screen: Any) -> None:
    """Teach a screen the one attribute of ours that pyte does not know."""
    known = screen.select_graphic_rendition

    def select_graphic_rendition(*codes: int, **kwargs: Any) -> None:
        known(*((90,) if codes == (2,) else codes), **kwargs)

    screen.select_graphic_rendition = select_graphic_rendition


def _look(cell: Any) -> str:
    return look(cell.fg, bold=cell.bold, italic=cell.italics, underlined=cell.underscore)


def record() -> Iterator[Frame]:
    with tempfile.TemporaryDirectory(prefix="paddock-") as home, Terminal(Path(home)) as terminal:
        left = shutil.ignore_patterns(".paddock", "out")
        shutil.copytree(EXAMPLE, Path(home, "examples", "first-run"), ignore=left)
        try:
            for scene in SCENES:
                print(scene.command)
                yield from terminal.play(scene)
        finally:
            terminal.start("paddock service stop").wait()


def main() -> None:
    frames = tuple(record())
    about = "A recording of a terminal: " + "; ".join(scene.command for scene in SCENES)
    text = svg(frames, TITLE.format(cores=os.cpu_count()), about)
    OUT.write_text(text, encoding="utf-8")
    seconds = sum(frame.seconds for frame in frames)
    print(f"{OUT}: {len(frames)} frames, {seconds:.0f} s, {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
