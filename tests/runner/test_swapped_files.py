"""A second user who may write into a scanned folder swaps files and folders for links.

Nothing of the owner's private files comes into an output, and nothing is written or removed there.
Where the tests run as root, another user swaps; elsewhere a process of the same user does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from paddock.engine.system import no_links
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.watches import PROCESSING
from paddock.runner.folders.file_filter import DONE, FAILED, WatchFilter, WatchSpec
from paddock.runner.folders.folder_listing import list_folder
from paddock.runner.watch import hot_folder
from paddock.steps.base import StepError
from paddock.steps.readers import reader_process
from paddock.steps.readers.reader import Unreadable
from tests.fakes.pdf import pdf
from tests.runner.world import World
from tests.waiting import PATIENCE_S

SECOND_USER = 54321
N_FILES = 120  # fewer are swapped more often each: as many are a link when a step opens them
N_IMAGES, N_HOT, N_COMMANDS, N_STORES = 80, 40, 40, 20
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
LOOKS = """\
name: looks
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: sees, uses: chat, with: {prompt: What is it, images: ["{{ doc.path }}"]}}
      - {uses: files.write, with: {path: "inbox/drop/{{ doc.name }}.md", text: "{{ doc.name }}"}}
"""
LISTS = """\
name: lists
steps:
  - id: each
    for_each: n in NUMBERS
    do:
      - id: ls
        uses: run
        with: {command: [sh, -c, "cat *; echo $1", sh, "{{ n }}"], cwd: inbox/drop}
      - {uses: files.write, with: {path: "out/{{ n }}.md", text: "{{ steps.ls.stdout }}"}}
"""
KEEPS = """\
name: keeps
steps:
  - id: each
    for_each: n in NUMBERS
    do:
      - {id: put, uses: embed, with: {texts: ["own {{ n }}"], store: inbox/drop/index.lance}}
      - {id: got, uses: search, with: {store: inbox/drop/index.lance, query: own, k: 99}}
      - {uses: files.write, with: {path: "out/{{ n }}.md", text: "{{ steps.got.hits | tojson }}"}}
"""
SWAPPER = """
import os, random, signal, sys
inbox, private, folders, every = sys.argv[1:]
os.chdir(inbox)
names = sorted(name for name in os.listdir() if '.' in name)
own = {name: open(name, 'rb').read() for name in names}
turn, ends = 0, []
signal.signal(signal.SIGTERM, lambda *_: ends.append(True))
print('ready', flush=True)
while not ends:  # no folder is left as a link
    turn += 1
    name = random.choice(names)
    try:
        os.symlink(f'{private}/secret{os.path.splitext(name)[1]}', '.link')
        os.rename('.link', name)
        if turn % int(every) == 0:
            folder = random.choice(folders.split(','))
            os.rename(folder, '.aside')
            os.symlink(private, folder)
            os.unlink(folder)
            os.rename('.aside', folder)
        with open('.file', 'wb') as file:
            file.write(own[name])
        os.rename('.file', name)
    except OSError:
        pass
"""


@pytest.fixture(params=["kernel", "parts"])
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter, with an inbox that they may write to."""
    if request.param == "parts":
        monkeypatch.setattr(no_links, "_has_openat2", lambda: False)
    root = Path(tempfile.mkdtemp(prefix="paddock-swapped-")).resolve()
    root.chmod(0o755)
    private(root).mkdir(0o700)
    for suffix in (".txt", ".html", ".csv", ".png"):
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
def swapper(folder: Path, *below: str, every: int = 20) -> Iterator[None]:
    """Swap the files of the inbox for links to private ones, and back, as another user.

    At each turn of `every` a folder `below` it (`drop`) is swapped for one to the private folder.
    """
    other = SECOND_USER if os.getuid() == 0 else None
    python = shutil.which("python3", path=os.defpath) or sys.executable
    process = subprocess.Popen(
        [python, "-I", "-c", SWAPPER, str(folder / "inbox"), str(private(folder)),
         ",".join(below or ["drop"]), str(every)],
        stdout=subprocess.PIPE, env={"PATH": os.defpath}, cwd="/",
        user=other, group=other, extra_groups=None if other is None else [],
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "it has swapped until the end"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def documents(
    folder: Path, n: int, suffixes: Sequence[str] = (".txt", ".txt", ".txt", ".html", ".csv")
) -> None:
    for number in range(n):
        suffix = suffixes[number % len(suffixes)]
        (folder / f"inbox/{number}{suffix}").write_text(f"own {number}\nown\n")


def private_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in private(folder).iterdir()}


def found_in(*folders: Path) -> list[Path]:
    """Return the files with foreign bytes; a link that was left is not followed."""
    paths = (path for folder in folders for path in folder.rglob("*"))
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
    documents(folder, 80)
    before = private_files(folder)
    world = World(folder, MOVES)
    with swapper(folder):
        world.run()
    assert private_files(folder) == before
    assert found_in(folder / "inbox/drop") == []
    assert not any(path.is_symlink() for path in (folder / "inbox/drop").iterdir())


def test_no_image_that_is_swapped_for_a_link_is_given_to_a_model(folder: Path) -> None:
    n = N_IMAGES if no_links._has_openat2() else N_IMAGES // 10
    documents(folder, n, [".png"])
    world = World(folder, LOOKS)
    with swapper(folder):
        world.run()
    images = [image for request in world.pool.chats for m in request.messages for image in m.images]
    assert len(images) > n / 10, "most were no link at that moment"
    assert not any(SECRET.encode() in image for image in images)
    assert all(image.startswith(b"own ") for image in images)


def test_a_hot_folder_takes_no_link_to_private_files_and_moves_nothing_there(folder: Path) -> None:
    documents(folder, N_HOT)
    before = private_files(folder)
    spec = WatchSpec("hot", folder / "inbox", is_hot=True)
    hot_folder.make_hot_folders(spec)
    if os.getuid() == 0:  # else they are ours, and stay where they are
        for name in (PROCESSING, DONE, FAILED):
            os.chown(spec.root / name, SECOND_USER, SECOND_USER)
    world = World(
        folder, COPIES.replace("./inbox", "./inbox/processing").replace("inbox/drop/", "out/")
    )
    watch_filter, n_moved = WatchFilter(spec), 0
    with swapper(folder, PROCESSING, FAILED, every=2):
        for _ in range(5):
            claimed = hot_folder.claim_files(spec, list_folder(spec.root, watch_filter).files, ())
            with suppress(StepError):  # the folder itself was a link
                world.run()
            failed = dict.fromkeys(list(claimed.files)[::2], "not this one")
            done = hot_folder.finish_files(spec, claimed.files, failed, claimed.files)
            n_moved += len(done.files)
    assert private_files(folder) == before
    assert found_in(folder / "out", folder / "kept", folder / "inbox") == []
    assert n_moved


def test_a_command_runs_in_no_folder_that_is_swapped_for_a_link(folder: Path) -> None:
    world = World(folder, LISTS.replace("NUMBERS", str(list(range(N_COMMANDS)))))
    (folder / "inbox/drop/own").write_text("own\n")
    (folder / "inbox/0.txt").write_text("x")
    with swapper(folder, every=1):
        world.run(allow=["run"])
    assert found_in(folder / "out") == []
    assert any((folder / "out").iterdir())


def test_no_store_that_is_swapped_for_a_link_is_read_or_written(folder: Path) -> None:
    pytest.importorskip("lancedb")
    numbers = str(list(range(N_STORES)))
    foreign = World(folder / "foreign", KEEPS.replace("NUMBERS", "[1]").replace("own", SECRET))
    foreign.run()
    (folder / "foreign/inbox/drop/index.lance").rename(private(folder) / "index.lance")
    before = sorted(str(path) for path in private(folder).rglob("*"))
    world = World(folder, KEEPS.replace("NUMBERS", numbers))
    (folder / "inbox/0.txt").write_text("x")
    with swapper(folder, every=1):
        for _ in range(20):
            try:
                world.run()
            except PipelineError:  # the check before a run met the folder while it was away
                continue
            break
        else:
            pytest.fail("no run began")
    assert found_in(folder / "out") == []
    assert sorted(str(path) for path in private(folder).rglob("*")) == before


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
