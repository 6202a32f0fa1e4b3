"""Dependencies are in the ledger as they always were, whatever their classes are."""

import json
from pathlib import Path

import pytest

from paddock.engine.system.records import replace
from paddock.runner.core.traces.dependencies import (
    ChosenLabels,
    Dependency,
    FileDependency,
    FileRead,
    KeptOutput,
    RowsKept,
    as_json,
    by_name,
    dependencies_of,
    read_dependencies,
)
from paddock.runner.ledger.entries import Entry, LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.settings import STATE_FOLDER
from tests.runner.world import World

READS = json.dumps(
    {
        "rules.md": [120, 1750000000000000000, "a1", 1750000000000000001, 7],
        "inbox/": ["listed", ['{"patterns":["*.md"]}', "d1"], ['{"patterns":["*.txt"]}', "d2"]],
        "out/b.md": ["written", "scope", "a", "b2"],
        "notes.lance#owner": ["rows", "notes.lance", "owner", "3:abc", "scope", "a"],
        "laws.lance": ["store", "content"],
        "inbox/a.md": ["away"],
        "held out/b.md": ["held", "out/b.md", "b2"],
        "limited sum": ["limited", "sum"],
        "taken out/c.md": ["taken"],
        "labels label/kind": ["labels", "digest", ["ferry"]],
        "labels other/kind": ["labels", "digest", None],
        "labels own/kind": ["labels", "digest", ["ferry"], True],
        "nearest label/kind": ["nearest", 0.25, "model", "AQID"],
        "examples r1": [
            "examples", ["bills", "bill"], "r1", ["d", "in/a.md", ""], "pool", {"r2": "x"}, -1.0,
            "model", "AQID",
        ],
        "rules r1": [
            "rules", ["bills", "bill"], "r1", "pool", "packed", {"total": [84.0, "r0"]}, ["number"],
            {"date": "2027-03-28"}, 1750000000.5, {"total": {"open": "far_larger"}},
        ],
    }
)  # fmt: skip


def test_each_kind_is_read_from_a_stored_line_and_written_byte_for_byte() -> None:
    found: list[Dependency] = read_dependencies(READS)
    kinds = {
        kind.__name__ for base in (Dependency, FileDependency) for kind in base.__subclasses__()
    }
    assert {type(dependency).__name__ for dependency in found} == kinds - {"FileDependency"}
    assert as_json(by_name(found)) == READS
    assert as_json({}) is None


def test_some_kinds_are_read_alone() -> None:
    entry = Entry("a", "", "{}", "done", reads=READS)
    assert [read.path for read in dependencies_of(entry, FileRead)] == ["rules.md"]
    assert [rows.sum for rows in dependencies_of(entry, RowsKept)] == ["3:abc"]
    labels = dependencies_of(entry, ChosenLabels)
    assert [of_list.chosen for of_list in labels] == [["ferry"], None, ["ferry"]]
    assert dependencies_of(replace(entry, reads='{"a": [1, 2, "c", 4, 5]}'), KeptOutput) == []
    assert dependencies_of(None, FileRead) == []


def test_a_dependency_that_a_newer_paddock_recorded_is_a_sentence(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=2)
    world.run()
    with Ledger(tmp_path / STATE_FOLDER) as ledger:
        ((scope_id,),) = ledger.rows("select scope from scopes where step = 'each'")
        entry = ledger.entries(scope_id)["0.txt"]
        newer = replace(entry, reads=json.dumps({"clock/": ["weather", "rain"]}))
        ledger.record(scope_id, newer, entry.run)
    words = (
        "an item of this ledger depends on 'clock/' in a way ('weather') that this Paddock does "
        "not know: a newer one wrote it. Run it with that version, which loses nothing."
    )
    with pytest.raises(LedgerError) as caught:
        world.plan()
    assert str(caught.value) == words
    report = world.run(prune=True)
    assert (report.status, report.message) == ("failed", words)
    assert world.output("0.txt")
