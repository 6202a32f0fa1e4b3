"""The copy on which a test runs: what is in it, what is not, and its bounds."""

import asyncio
from pathlib import Path

from paddock.runner.ledger.entries import StoredRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.testing.sandbox_copy import sandbox_copy as staged
from tests.runner.world import World


def listed(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def test_own_outputs_hidden_folders_and_recorded_replies_stay_behind(
    world: World, tmp_path: Path
) -> None:
    world.documents(1)
    world.run()
    for name in (".git/config", "node_modules/x.js", "tests/cassettes/a.jsonl", ".hidden"):
        world.write(name, "x")
    world.write("out/by-hand.txt", "mine")
    with staged(world.file, without=[tmp_path / "tests" / "cassettes"]) as made:
        assert listed(made.folder) == {"pipeline.yaml", "inbox/0.txt", "out/by-hand.txt", ".hidden"}
        assert list(made.tmp.iterdir()) == []
        assert made.original == tmp_path
    assert not made.folder.exists()
    assert (tmp_path / "out" / "0.txt").exists()


def test_a_model_next_to_it_is_linked_and_globs_choose(world: World) -> None:
    world.documents(3)
    world.write("m.gguf", "weights")
    with staged(world.file, patterns=["inbox/1.txt", "*.gguf"]) as made:
        assert listed(made.folder) == {"pipeline.yaml", "inbox/1.txt", "m.gguf"}
        assert (made.folder / "m.gguf").is_symlink()


def test_a_store_that_items_have_rows_in_stays_behind(world: World, tmp_path: Path) -> None:
    world.write("index.lance/rows.bin", "vectors")
    world.write("other.lance/rows.bin", "vectors")
    with Ledger(tmp_path / ".paddock") as ledger:
        LineageStore(ledger).record_rows(StoredRow("s", "index.lance", "a.md", "2:ab", 2), "run")
        asyncio.run(ledger.durable())
    with staged(world.file) as made:
        assert listed(made.folder) == {"pipeline.yaml", "other.lance/rows.bin"}


def test_a_link_out_of_the_folder_is_copied_as_a_link(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to("/etc/passwd")
    (tmp_path / "elsewhere").symlink_to("/etc")
    with staged(world.file) as made:
        assert (made.folder / "secret").is_symlink()
        assert not (made.folder / "elsewhere").exists()
