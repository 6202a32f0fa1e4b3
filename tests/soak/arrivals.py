"""Files that arrive in every bad way that folders have seen, and what is there when all is quiet.

Knows no Paddock: it writes, moves, rewrites and deletes, and remembers the last version of each.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.judge import Arrival

NAMES = (
    "{n}", "{n} with spaces", "-{n}", "été {n}", "{n} 日本", "{n}'s \"own\"", "{n} {{ braces }}",
    "{n}%20&#x;", "deep/er/{n}", "{n}" + "x" * 150,
)  # fmt: skip
POISON = "-poison"
"""In a name: the process that works on it dies. `mark.py` knows it too."""
LONG_S = 3.5  # three times what the watches wait for a file to settle
WORDS = ("ferry", "noon", "nobody", "pier", "knows", "whether", "it", "will", "come", "back")


@dataclass
class Folder:
    pipeline: str
    root: Path
    elsewhere: Path
    """A folder of the same file system that no one watches."""
    words: int = 30
    known: dict[str, Arrival] = field(default_factory=dict)
    """The last version of each file, by its relative path."""
    is_taken: bool = False
    """Files leave by themselves (a hot folder): nothing that has arrived is touched again."""
    is_there: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the root is away."""

    def settled(self, relpath: str, content: bytes, *, is_broken: bool = False) -> None:
        """Remember what lies there from now on."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.known[relpath] = Arrival(self.pipeline, relpath, sha256, time.time(), is_broken)


class Arrivals:
    """Files that arrive in one folder after another."""

    def __init__(self, folders: Sequence[tuple[Folder, int]], seed: int) -> None:
        self._folders = folders
        """Each with its weight."""
        self._random = random.Random(seed)
        self._n = 0
        self.by_way: dict[str, int] = {}

    async def bad(self, way: Way, folder: Folder) -> None:
        """Add one of the worst."""
        await folder.is_there.wait()
        await way(self, folder)
        self.by_way[way.__name__] = self.by_way.get(way.__name__, 0) + 1

    async def one(self) -> None:
        folders = [folder for folder, _ in self._folders]
        weights = [weight for _, weight in self._folders]
        (folder,) = self._random.choices(folders, weights)
        await folder.is_there.wait()
        way = self._random.choice(GENTLE if folder.is_taken else (*GENTLE, *ROUGH))
        try:
            await way(self, folder)
        except FileNotFoundError:
            if folder.is_there.is_set():
                raise
            return  # the root went away in the middle; what it had is still its last version
        self.by_way[way.__name__] = self.by_way.get(way.__name__, 0) + 1

    def name(self, suffix: str = ".txt") -> str:
        self._n += 1
        return self._random.choice(NAMES).replace("{n}", f"{self._n:05}") + suffix

    def content(self, folder: Folder) -> bytes:
        self._n += 1
        words = self._random.choices(WORDS, k=folder.words)
        return f"{self._n}: {' '.join(words)}.\n".encode()

    def pick(self, folder: Folder) -> str | None:
        there = [path for path, one in folder.known.items() if not one.is_broken]
        return self._random.choice(there) if there else None

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(self._random.uniform(0.02, most_s))


Way = Callable[[Arrivals, Folder], Awaitable[None]]


def _room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


async def at_once(all_: Arrivals, folder: Folder) -> None:
    """Write it whole."""
    name, content = all_.name(), all_.content(folder)
    _room(folder.root / name).write_bytes(content)
    folder.settled(name, content)


async def in_pieces(all_: Arrivals, folder: Folder) -> None:
    name, content = all_.name(), all_.content(folder)
    with _room(folder.root / name).open("wb", buffering=0) as file:
        for start in range(0, len(content), 1 + len(content) // 4):
            file.write(content[start : start + 1 + len(content) // 4])
            await all_.pause(1.5)
    folder.settled(name, content)


async def by_part_name(all_: Arrivals, folder: Folder) -> None:
    """Download it under another name, then give it its own."""
    name, content = all_.name(), all_.content(folder)
    part = _room(folder.root / f"{name}.part")
    part.write_bytes(content[:20])
    await all_.pause(1.0)
    await folder.is_there.wait()
    part.write_bytes(content)
    part.replace(folder.root / name)
    folder.settled(name, content)


async def moved_in(all_: Arrivals, folder: Folder) -> None:
    """Bring it from elsewhere: only one event tells."""
    name, content = all_.name(), all_.content(folder)
    there = folder.elsewhere / "coming"
    there.write_bytes(content)
    there.replace(_room(folder.root / name))
    folder.settled(name, content)


async def with_an_old_time(all_: Arrivals, folder: Folder) -> None:
    """Copy it with the time that it had, which is long ago."""
    name, content = all_.name(), all_.content(folder)
    file = _room(folder.root / name)
    file.write_bytes(content)
    os.utime(file, (1_000_000_000, 1_000_000_000 + all_._random.random()))
    folder.settled(name, content)


async def broken(all_: Arrivals, folder: Folder) -> None:
    """Bring what no one can read: nothing in it, or the beginning of a PDF."""
    is_pdf = all_._random.random() < 0.5
    name = all_.name(".pdf" if is_pdf else ".txt")
    content = b"%PDF-1.7\n" + all_.content(folder) if is_pdf else b""
    if all_._random.random() < 0.5:  # not too many of them
        return
    _room(folder.root / name).write_bytes(content)
    folder.settled(name, content, is_broken=True)


async def kept_open(all_: Arrivals, folder: Folder) -> None:
    """Write the beginning, and the end when it looks settled: the file stays open for so long."""
    name, content = all_.name(), all_.content(folder)
    with _room(folder.root / name).open("wb", buffering=0) as file:
        file.write(content[:10])
        await asyncio.sleep(LONG_S)
        file.write(content[10:])
    folder.settled(name, content)


async def late(all_: Arrivals, folder: Folder) -> None:
    """Add the end to a document that a hot folder has taken already, and a run may have read."""
    name, content = all_.name(), all_.content(folder)
    file = _room(folder.root / name)
    file.write_bytes(content[:10])
    if folder.is_taken:  # elsewhere others could pick it before it is whole
        folder.settled(name, content[:10])
    claimed = folder.root / "processing" / name
    for _ in range(400):
        await asyncio.sleep(0.05)
        try:
            end = (claimed if folder.is_taken else file).open("r+b", buffering=0)
        except FileNotFoundError:
            continue
        with end:
            if folder.is_taken and not claimed.exists():  # it is done: that is too late
                return
            end.seek(0, os.SEEK_END)
            await all_.pause(1.0)
            end.write(content[10:])
        folder.settled(name, content)
        return


async def poison(all_: Arrivals, folder: Folder) -> None:
    """Bring what kills the process of the run that works on it."""
    name, content = all_.name(f"{POISON}.txt"), all_.content(folder)
    _room(folder.root / name).write_bytes(content)
    folder.settled(name, content, is_broken=True)


async def bomb(all_: Arrivals, folder: Folder) -> None:
    """Bring a small PDF whose one page is 300 MB when it is read."""
    name, content = all_.name(".pdf"), inflating_pdf(all_._n)
    _room(folder.root / name).write_bytes(content)
    folder.settled(name, content, is_broken=True)


def inflating_pdf(mark: int) -> bytes:
    """Return a PDF that is larger in memory by a thousand times."""
    packer = zlib.compressobj(9)
    shown = b"(A ferry at noon.) Tj " * 5000
    pieces = [packer.compress(b"BT /F1 12 Tf "), *(packer.compress(shown) for _ in range(2800))]
    stream = b"".join([*pieces, packer.compress(b"ET"), packer.flush()])
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (n, one) for n, one in enumerate(objects, 1))
    return b"%%PDF-1.4\n%%%d\n%s" % (mark, body) + b"trailer << /Root 1 0 R /Size 6 >>\n%%EOF\n"


async def rewritten(all_: Arrivals, folder: Folder) -> None:
    """Write another version into a file that may be under way."""
    name = all_.pick(folder)
    if name is None:
        return
    content = all_.content(folder)
    (folder.root / name).write_bytes(content)
    folder.settled(name, content)


async def appended(all_: Arrivals, folder: Folder) -> None:
    """Add to it, several times, as a log does."""
    name = all_.pick(folder)
    if name is None:
        return
    file = folder.root / name
    for _ in range(3):
        with file.open("ab") as end:
            end.write(all_.content(folder))
        folder.settled(name, file.read_bytes())
        await all_.pause(0.6)
        await folder.is_there.wait()
        if name not in folder.known:  # another hand has taken it away meanwhile
            return


async def touched(all_: Arrivals, folder: Folder) -> None:
    """Change a file's time and nothing else: there is nothing to do again."""
    name = all_.pick(folder)
    if name is not None:
        (folder.root / name).touch()


async def deleted(all_: Arrivals, folder: Folder) -> None:
    name = all_.pick(folder)
    if name is not None and all_._random.random() < 0.3:
        del folder.known[name]
        (folder.root / name).unlink()


async def moved_within(all_: Arrivals, folder: Folder) -> None:
    """Rename a file: another one, for a pipeline."""
    name = all_.pick(folder)
    if name is None:
        return
    there = all_.name()
    (folder.root / name).replace(_room(folder.root / there))
    del folder.known[name]
    folder.settled(there, (folder.root / there).read_bytes())


async def a_folder_of_them(all_: Arrivals, folder: Folder) -> None:
    """Move in a folder with files in it: no event tells of those."""
    name = all_.name("")
    made = folder.elsewhere / "folder"
    made.mkdir()
    contents = {f"{i}.txt": all_.content(folder) for i in range(5)}
    for inner, content in contents.items():
        (made / inner).write_bytes(content)
    (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder.root / name)
    for inner, content in contents.items():
        folder.settled(f"{name}/{inner}", content)


async def litter(all_: Arrivals, folder: Folder) -> None:
    """Leave what is no document: other programs' traces, links in a circle, links to nothing."""
    name = all_.name("")
    place = _room(folder.root / name)
    kind = all_._random.randrange(4)
    if kind == 0:
        place.with_name(f".{place.name[:40]}.swp").write_bytes(b"editor")
    elif kind == 1:
        place.with_name(f".~lock.{place.name[:40]}#").write_bytes(b"office")
    elif kind == 2:
        place.symlink_to(folder.root)
    else:
        place.symlink_to("nowhere")


GENTLE: tuple[Way, ...] = (
    at_once, in_pieces, by_part_name, moved_in, with_an_old_time, broken, kept_open, late,
)  # fmt: skip
ROUGH: tuple[Way, ...] = (
    rewritten, appended, touched, deleted, moved_within, a_folder_of_them, litter,
)  # fmt: skip
