"""A hot folder: claims by rename, ends by rename, numbers where a name is taken."""

from __future__ import annotations

from pathlib import Path

from paddock.runner.watch import hot
from paddock.runner.watch.filter import Filter
from paddock.runner.watch.listing import listed
from paddock.runner.watch.spec import Seen, WatchSpec


def opened(root: Path) -> WatchSpec:
    spec = WatchSpec("w", root, is_hot=True)
    hot.prepare(spec)
    return spec


def dropped(spec: WatchSpec, relpath: str, text: str = "x") -> dict[str, Seen]:
    path = spec.root / relpath
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {relpath: listed(spec.root, Filter(spec)).files[relpath]}


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_claimed_done_and_failed_with_the_reason_beside_it(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    settled = dropped(spec, "a.txt") | dropped(spec, "sub/b.txt")
    assert hot.claim(spec, settled, ()).files == settled
    assert everything(tmp_path) == ["processing/a.txt", "processing/sub/b.txt"]
    assert not (tmp_path / "sub").exists()
    hot.finish(spec, settled, {"sub/b.txt": "it is empty"})
    assert everything(tmp_path) == [
        "done/a.txt",
        "failed/sub/b.txt",
        "failed/sub/b.txt.reason.txt",
    ]
    assert (tmp_path / "failed/sub/b.txt.reason.txt").read_text() == "it is empty\n"


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    for text in ("one", "two", "three"):
        hot.claim(spec, dropped(spec, "a.txt", text), ())
        hot.finish(spec, ["a.txt"], {})
    hot.claim(spec, dropped(spec, "a.txt", "four"), ())
    hot.finish(spec, ["a.txt"], {"a.txt": "why"})
    done = [path.read_text() for path in sorted((tmp_path / "done").iterdir())]
    assert everything(tmp_path / "done") == ["a.2.txt", "a.3.txt", "a.txt"]
    assert sorted(done) == ["one", "three", "two"]
    assert everything(tmp_path / "failed") == ["a.txt", "a.txt.reason.txt"]


def test_what_has_changed_or_gone_since_it_settled_is_not_claimed(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    settled = dropped(spec, "a.txt") | dropped(spec, "b.txt")
    (tmp_path / "a.txt").write_text("longer")
    (tmp_path / "b.txt").unlink()
    assert hot.claim(spec, settled, ()) == hot.Moved({}, {})
    assert everything(tmp_path) == ["a.txt"]


def test_what_lies_in_processing_is_never_replaced(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    (spec.processing / "a.txt").write_text("somebody's own")
    moved = hot.claim(spec, dropped(spec, "a.txt"), ())
    assert moved.refused == {"a.txt": "a file of that name lies in 'processing' already"}
    assert (spec.processing / "a.txt").read_text() == "somebody's own"


def test_after_a_kill_what_was_claimed_is_found_and_finishing_twice_is_harmless(
    tmp_path: Path,
) -> None:
    spec = opened(tmp_path)
    settled = dropped(spec, "a.txt") | dropped(spec, "sub/b.txt")
    hot.claim(spec, settled, ())
    assert hot.found(spec, Filter(spec)) == settled
    hot.finish(spec, settled, {})
    assert hot.finish(spec, settled, {}).refused == {}
    assert everything(tmp_path) == ["done/a.txt", "done/sub/b.txt"]


def test_a_move_that_the_system_refuses_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    settled = dropped(spec, "sub/a.txt")
    hot.claim(spec, settled, ())
    (tmp_path / "done/sub").write_text("a file in the way")
    moved = hot.finish(spec, settled, {})
    assert moved.files == {}
    assert moved.refused == {"sub/a.txt": "File exists"}
    assert (spec.processing / "sub/a.txt").exists()
