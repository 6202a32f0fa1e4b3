"""A second user who may write into a scanned folder swaps files and folders for links.

Nothing of the owner's private files comes into an output, and nothing is written or removed there.
Where the tests run as root, another user swaps; elsewhere a process of the same user does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paddock.engine.system import no_links
from paddock.steps.readers import reader_process
from paddock.steps.readers.reader import Unreadable
from tests.fakes.pdf import pdf
from tests.runner.world import World

SECOND_USER = 54321
N_FILES = 2_000
SECRET = "FOREIGN BYTES"
COPIES = """\
name: copies
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: text
        if: doc.suffix != '.csv'
        uses: files.read
        with: {path: "{{ doc.path }}"}
      - id: rows
        if: doc.suffix == '.csv'
        uses: files.rows
        with: {path: "{{ doc.path }}"}
      - id: tool
        uses: tool
        with: {name: files.read, args: {path: "{{ doc.relpath }}"}, options: {root: inbox}}
      - uses: files.write
        with:
          path: "inbox/drop/{{ doc.name }}.md"
          text: "{{ steps.text.text }} {{ steps.rows.rows }} {{ steps.tool.result }}"
      - {uses: files.move, with: {path: "{{ doc.path }}", to: kept/, mode: copy}}
"""
MOVES = """\
name: moves
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "inbox/drop/", on_exists: replace}}
"""
SWAPPER = """
import os, random, sys
inbox, private = sys.argv[1:]
os.chdir(inbox)
names = sorted(name for name in os.listdir() if '.' in name)
own = {name: open(name, 'rb').read() for name in names}
print('ready', flush=True)
for turn in range(10**9):
    name = random.choice(names)
    try:
        os.symlink(f'{private}/secret{os.path.splitext(name)[1]}', '.link')
        os.rename('.link', name)
        if turn % 20 == 0:
            os.rename('drop', '.drop')
            os.symlink(private, 'drop')
            os.unlink('drop')
            os.rename('.drop', 'drop')
        with open('.file', 'wb') as file:
            file.write(own[name])
        os.rename('.file', name)
    except OSError:
        pass
"""

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(params=["kernel", "parts"])
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter, with an inbox that they may write to."""
    if request.param == "parts":
        monkeypatch.setattr(no_links, "_has_openat2", lambda: False)
    root = Path(tempfile.mkdtemp(prefix="paddock-swapped-")).resolve()
    root.chmod(0o755)
    private(root).mkdir(0o700)
    for suffix in (".txt", ".html", ".csv"):
        (private(root) / f"secret{suffix}").write_text(f"{SECRET}\n{SECRET}\n")
    (private(root) / "secret.pdf").write_bytes(pdf(SECRET))
    for name in ("inbox", "inbox/drop"):
        (root / name).mkdir()
        (root / name).chmod(0o777)
        if os.getuid() == 0:
            os.chown(root / name, SECOND_USER, SECOND_USER)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(private(root), ignore_errors=True)


def private(folder: Path) -> Path:
    """Return the owner's private folder: one of the pipeline's, if another user's links can be."""
    return folder / "private" if os.getuid() == 0 else folder.with_name(f"{folder.name}-private")


@contextmanager
def swapper(folder: Path) -> Iterator[None]:
    """Swap the files of the inbox for links to private ones, and back, as another user."""
    other = SECOND_USER if os.getuid() == 0 else None
    python = shutil.which("python3", path=os.defpath) or sys.executable
    process = subprocess.Popen(
        [python, "-I", "-c", SWAPPER, str(folder / "inbox"), str(private(folder))],
        stdout=subprocess.PIPE, env={"PATH": os.defpath}, cwd="/",
        user=other, group=other, extra_groups=None if other is None else [],
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "it has swapped until the end"
    finally:
        process.kill()
        process.communicate()


def documents(folder: Path, n: int) -> None:
    for number in range(n):
        suffix = (".txt", ".txt", ".txt", ".html", ".csv")[number % 5]
        (folder / f"inbox/{number}{suffix}").write_text(f"own {number}\nown\n")


def private_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in private(folder).iterdir()}


def found_in(*folders: Path) -> list[Path]:
    """Return the files with foreign bytes; a link that was left is not followed."""
    paths = (path for one in folders for path in one.rglob("*"))
    files = (path for path in paths if path.is_file() and not path.is_symlink())
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def test_no_document_that_is_swapped_for_a_link_comes_into_an_output(folder: Path) -> None:
    n = N_FILES if no_links._has_openat2() else N_FILES // 10
    documents(folder, n)
    before = private_files(folder)
    world = World(folder, COPIES)
    with swapper(folder):
        report = world.run()
    assert private_files(folder) == before
    assert found_in(folder / "inbox/drop", folder / "kept") == []
    assert not any(path.is_symlink() for path in (folder / "kept").iterdir())
    assert len(list((folder / "kept").iterdir())) > n / 10, "most were no link at that moment"
    texts = [item.error or "" for item in report.items]
    assert not any(SECRET in text for text in texts)


def test_a_move_takes_no_link_along_and_removes_nothing_elsewhere(folder: Path) -> None:
    documents(folder, 300)
    before = private_files(folder)
    world = World(folder, MOVES)
    with swapper(folder):
        world.run()
    assert private_files(folder) == before
    assert found_in(folder / "inbox/drop") == []
    assert not any(path.is_symlink() for path in (folder / "inbox/drop").iterdir())


def test_no_page_of_a_file_that_is_swapped_is_drawn(folder: Path) -> None:
    path = folder / "inbox/a.pdf"
    path.write_bytes(pdf("own"))
    own = reader_process.draw_page(path, 1, 100, 10**6)
    foreign = reader_process.draw_page(private(folder) / "secret.pdf", 1, 100, 10**6)
    drawn = set()
    with swapper(folder):
        for _ in range(300):
            try:
                drawn.add(reader_process.draw_page(path, 1, 100, 10**6))
            except (OSError, Unreadable):
                continue
    assert foreign not in drawn
    assert drawn <= {own}
