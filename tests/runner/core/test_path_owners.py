"""A path is its item's as long as that has a row: what else would write it waits, and is named."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from paddock.engine.system.files import ignores_letter_case
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.ledger import output_index
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.report import Report
from paddock.runner.settings import STATE_FOLDER
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.hot_folder import finish_files, make_hot_folders
from paddock.runner.workers.order import Order
from tests.runner.world import World

READ = '{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}'
MOVE = '{id: move, uses: files.move, with: {path: "{{ doc.path }}", to: done/}}'


def write(path: str, name: str = "each") -> str:
    text = f"{{{{ steps.text_{name}.text }}}}"
    return f'{{id: out_{name}, uses: files.write, with: {{path: "{path}", text: "{text}"}}}}'


def block(*steps: str, root: str = "inbox", name: str = "each") -> str:
    body = "\n      - ".join((READ.replace("text,", f"text_{name},"), *steps))
    return f"""\
  - {{id: docs_{name}, uses: files.scan, with: {{root: {root}}}}}
  - id: {name}
    for_each: doc in steps.docs_{name}.files
    do:
      - {body}
    returns: {{file: doc.relpath, text: steps.text_{name}.text}}
"""


TABLE = (
    '  - {id: table, uses: files.write, with: {path: t.csv, rows: "{{ steps.each.results }}"}}\n'
)
SUB = """\
inputs: {name: {type: str}, text: {type: str}}
steps:
  - {id: page, uses: files.write, with: {path: "PATH", text: "{{ inputs.text }}"}}
"""
OF_SUB = """{id: sub, uses: pipeline, with: {file: sub.yaml, inputs: {name: "{{ NAME }}",
        text: "{{ steps.text_each.text }}"}}}"""
PARTS = """id: parts
        for_each: n in [1]
        do:
          - id: part
            uses: files.write
            with: {path: "PATH", text: "{{ steps.text_each.text }}"}"""
LATE = '{id: late, uses: prompt, with: {template: "NAME"}}'
STEM, RELPATH = "out/{{ doc.stem }}", "out/{{ doc.relpath }}"
WAYS: Mapping[str, tuple[str, ...]] = {
    "a path": (write("PATH"),),
    "a path that is known late": (LATE, write("out/{{ steps.late.text }}")),
    "a nested block": (PARTS,),
    "a pipeline of the item": (OF_SUB,),
    "a step with a condition": (
        write("PATH").replace("with:", "if: \"'x' not in steps.text_each.text\", with:"),
    ),
}
"""By how items write: the steps."""


def world_of(folder: Path, way: str, path: str, *, moves: bool = False) -> World:
    name = path.removeprefix("out/{{ ").removesuffix(" }}")
    steps = [
        s.replace("PATH", path).replace("NAME", f"{{{{ {name} }}}}" if s is LATE else name)
        for s in WAYS[way]
    ]
    text = "steps:\n" + block(*steps, *([MOVE] if moves else [])) + TABLE
    sub = SUB.replace("PATH", "out/{{ inputs.name }}")
    return World(folder, text, beside={"sub.yaml": sub} if "pipeline" in way else {})


def blocked(report: Report) -> dict[str, str | None]:
    return {
        item.key: item.error
        for item in report.items
        if item.state == "blocked" and "/" not in item.key
    }


def outputs(world: World) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((world.folder / "out").glob("*"))}


@pytest.mark.parametrize("way", WAYS)
def test_three_scans_of_one_name_that_are_filed_give_one_output_and_a_sentence(
    tmp_path: Path, way: str
) -> None:
    world = world_of(tmp_path, way, RELPATH, moves=True)
    for n in (1, 2, 3):
        world.write("inbox/scan.txt", f"Invoice {n}")
        report = world.run()
        if n > 1:
            why = blocked(report)["scan.txt#2"]
            assert why is not None
            assert "'out/scan.txt' is an output of" in why
            assert (report.status, report.exit_status()) == ("completed", 0)
            assert any("scan.txt#2" in note for note in report.notes)
    assert outputs(world) == {"scan.txt": "Invoice 1"}
    assert (tmp_path / "inbox/scan.txt").exists()  # not filed
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["scan.txt"]
    assert world.output("../t.csv").splitlines()[1:] == ["scan.txt,Invoice 1"]
    (planned,) = [item for item in world.plan().items if item.state == "blocked"]
    assert planned.key == "scan.txt#2" and "out/scan.txt" in str(planned.why)
    assert any("blocked: " in use for use in explain_path(tmp_path / "inbox/scan.txt").read_by)
    (tmp_path / "done/scan.txt").unlink()
    world.run(prune=True, is_confirmed=True)  # what goes, goes before what is written
    assert outputs(world) == {"scan.txt": "Invoice 3"}
    assert world.run().counts == {"filed": 1} or not blocked(world.run())
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["scan.txt"]


@pytest.mark.parametrize("way", WAYS)
def test_a_path_by_content_gives_each_of_three_scans_its_output(tmp_path: Path, way: str) -> None:
    world = world_of(tmp_path, way, "out/{{ doc.sha256 }}", moves=True)
    for n in (1, 2, 3):
        world.write("inbox/scan.txt", f"Invoice {n}")
        assert not blocked(world.run())
    assert sorted(outputs(world).values()) == ["Invoice 1", "Invoice 2", "Invoice 3"]
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == [
        "scan-1.txt", "scan-2.txt", "scan.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_an_item_keeps_its_path_until_it_is_deleted_and_only_the_newcomer_waits(
    tmp_path: Path, way: str
) -> None:
    world = world_of(tmp_path, way, STEM)
    world.write("inbox/report.txt", "first")
    world.write("inbox/other.txt", "other")
    world.run()
    world.write("inbox/report.md", "second")
    world.write("inbox/new.txt", "new")
    assert list(blocked(world.run())) == ["report.md"]
    assert outputs(world) == {"new": "new", "other": "other", "report": "first"}
    world.write("inbox/report.txt", "edited")  # it stays the owner's
    assert list(blocked(world.run())) == ["report.md"]
    assert outputs(world)["report"] == "edited"
    (tmp_path / "inbox/report.txt").rename(tmp_path / "inbox/renamed.txt")
    assert not blocked(world.run())
    assert outputs(world) == {
        "new": "new",
        "other": "other",
        "renamed": "edited",
        "report": "second",
    }
    assert not world.plan().outdated
    (tmp_path / "inbox/report.md").unlink()
    world.write("inbox/report.csv", "third")
    assert not blocked(world.run())
    assert outputs(world)["report"] == "third"
    assert not blocked(world.run())
    assert [item.state for item in world.plan().items if item.step == "each"] == ["fresh"] * 4


def test_a_failed_owner_keeps_its_path(tmp_path: Path) -> None:
    template = "{{ 1 / (0 if 'bad' in steps.text_each.text else 1) }}"
    body = f'{{id: fails, uses: prompt, with: {{template: "{template}"}}}}'
    world = World(tmp_path, "steps:\n" + block(body, write(STEM)))
    world.write("inbox/report.txt", "first")
    world.run()
    world.write("inbox/report.txt", "bad")
    world.write("inbox/report.md", "second")
    report = world.run()
    assert (report.counts, list(blocked(report))) == (
        {"quarantined": 1, "blocked": 1},
        ["report.md"],
    )
    world.write("inbox/report.txt", "mended")
    assert list(blocked(world.run())) == ["report.md"]
    assert outputs(world) == {"report": "mended"}


def test_items_that_swap_their_paths_are_both_done(tmp_path: Path) -> None:
    world = World(tmp_path, "steps:\n" + block(write("out/{{ steps.text_each.text }}")))
    world.edit('steps.text_each.text }}", text', 'doc.size }}", text')
    world.write("inbox/a.txt", "1")
    world.write("inbox/b.txt", "22")
    world.run()
    world.write("inbox/a.txt", "33")
    world.write("inbox/b.txt", "4")
    assert not blocked(world.run())
    assert outputs(world) == {"1": "4", "2": "33"}


def test_an_edited_output_is_held_and_stays_its_items(tmp_path: Path) -> None:
    world = world_of(tmp_path, "a path", STEM)
    world.write("inbox/report.txt", "first")
    world.run()
    world.write("out/report", "Mine.")
    world.write("inbox/report.txt", "second")
    world.write("inbox/report.md", "other")
    assert list(blocked(world.run())) == ["report.md"]
    assert list(blocked(world.run(takes_over=True))) == ["report.md"]
    assert outputs(world) == {"report": "second"}


BLOCKS: Mapping[str, str] = {
    "an earlier block": block(write("out/{{ doc.relpath[5:] }}", "first"), name="first")
    + block(write(RELPATH)),
    "a later block": block(write(RELPATH))
    + block(write("out/{{ doc.relpath[5:] }}", "last"), name="last"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_of_two_blocks_the_one_that_wrote_a_path_has_it_until_it_leaves_the_item_out(
    tmp_path: Path, name: str
) -> None:
    world = World(tmp_path, "steps:\n" + BLOCKS[name])
    world.write("inbox/keep-a", "kept")  # 'each' writes out/keep-a, the other out/a
    world.run()
    world.write("inbox/a", "of a")
    (planned,) = [item for item in world.plan().items if item.state == "blocked"]
    report = world.run()
    assert (planned.step, planned.key) == ("each", "a")
    other = "first" if "first" in world.text else "last"
    assert blocked(report)["a"] == f"'out/a' is an output of item 'keep-a' of '{other}'"
    assert outputs(world)["a"] == "kept"
    world.edit(
        f"steps.docs_{other}.files",
        f"steps.docs_{other}.files | rejectattr('name', 'eq', 'keep-a') | list",
    )
    assert "a" not in [
        i.key for i in world.plan().items if i.state == "blocked" and i.step == "each"
    ]
    report = world.run()
    assert [
        item.key for item in report.items if item.state == "blocked" and item.step == "each"
    ] == []
    assert outputs(world)["a"] == "of a"


def test_a_copy_of_another_document_of_that_name_gets_a_number(tmp_path: Path) -> None:
    copy = '{uses: files.move, with: {path: "{{ doc.path }}", to: copies/, mode: copy}}'
    world = World(tmp_path, "steps:\n" + block(copy, MOVE))
    for n in (1, 2, 3):
        world.write("inbox/scan.txt", f"Invoice {n}")
        assert not blocked(world.run())
    copies = {path.name: path.read_text() for path in sorted((tmp_path / "copies").iterdir())}
    assert copies == {"scan-1.txt": "Invoice 2", "scan-2.txt": "Invoice 3", "scan.txt": "Invoice 1"}


def test_a_table_names_what_waits_in_its_column(tmp_path: Path) -> None:
    world = world_of(tmp_path, "a path", STEM)
    world.edit('results }}"', 'results }}", waiting: "{{ steps.each.waiting }}"')
    world.write("inbox/report.txt", "first")
    world.run()
    world.write("inbox/report.md", "second")
    world.run()
    assert world.output("../t.csv").splitlines() == [
        "file,text,waiting", "report.txt,first,false", "report.md,,true",
    ]  # fmt: skip


def test_in_a_hot_folder_the_newcomer_stays_in_processing(tmp_path: Path) -> None:
    text = "on: {watch: [{path: inbox, claim: move}]}\nsteps:\n"
    world = World(tmp_path, text + block(write(RELPATH), root="inbox/processing") + TABLE)
    spec = WatchSpec("pipeline.yaml:inbox", tmp_path / "inbox", is_hot=True)
    world.write("inbox/scan.txt", "")
    make_hot_folders(spec)
    (tmp_path / "inbox/scan.txt").unlink()
    ledger = WatchLedger(
        spec.name, spec.root, world.file,
        lambda is_readonly: Ledger(tmp_path / STATE_FOLDER, is_readonly=is_readonly),
    )  # fmt: skip
    for n in (1, 2):
        world.write("inbox/processing/scan.txt", f"Invoice {n}")
        for _ in range(n):  # also when it is tried again
            report = world.run()
            order = Order(
                "o", "o", "pipeline.yaml", trigger="watch", run=report.run, end="completed"
            )
            waiting = ledger.outcome(order).waiting
            assert waiting == ({"scan.txt"} if n == 2 else set())
        names = {"scan.txt"} - set(waiting)
        finish_files(spec, names, {}, None, ledger.record_filed)
    assert outputs(world) == {"scan.txt": "Invoice 1"}
    assert [path.name for path in (tmp_path / "inbox/processing").iterdir()] == ["scan.txt"]
    (tmp_path / "inbox/done/scan.txt").unlink()
    world.run(prune=True, is_confirmed=True)
    assert outputs(world) == {"scan.txt": "Invoice 2"}


KNOWN = [way for way in WAYS if way not in ("a path that is known late", "a step with a condition")]


@pytest.mark.parametrize("way", KNOWN)
def test_of_two_new_items_that_would_write_one_path_both_wait_in_plan_and_run(
    tmp_path: Path, way: str
) -> None:
    world = world_of(tmp_path, way, STEM, moves=True)
    for name in ("report.txt", "report.md", "other.txt"):
        world.write(f"inbox/{name}", name)
    planned = {i.key: str(i.why) for i in world.plan().items if i.state == "blocked"}
    report = world.run()
    assert planned == blocked(report)
    assert planned == {
        "report.txt": "'out/report' would be written by 'report.md', too",
        "report.md": "'out/report' would be written by 'report.txt', too",
    }
    assert outputs(world) == {"other": "other.txt"}
    (tmp_path / "inbox/report.md").unlink()
    assert not blocked(world.run())
    assert outputs(world) == {"other": "other.txt", "report": "report.txt"}
    world.write("inbox/report.md", "late")
    planned = {i.key: str(i.why) for i in world.plan().items if i.state == "blocked"}
    assert planned == blocked(world.run()) != {}


OF_FOLDERS = """\
steps:
  - id: folders
    for_each: f in ['inbox', 'more']
    key: f
    do: [{id: sub, uses: pipeline, with: {file: sub.yaml, inputs: {from: "{{ f }}"}}}]
    returns: {folder: f, rows: steps.sub.rows}
  - id: table
    uses: files.write
    with:
      path: t.csv
      rows: "{{ steps.folders.results | map(attribute='rows') | flatten | list }}"
"""
IN_FOLDERS = {
    "a block": """\
steps:
  - id: folders
    for_each: f in ['inbox', 'more']
    key: f
    do:
      - {id: docs, uses: files.scan, with: {root: "{{ f }}"}}
      - id: each
        for_each: doc in steps.docs.files
        do:
          - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
          - {uses: files.write, with: {path: "out/{{ doc.stem }}", text: "{{ steps.text.text }}"}}
        returns: {file: doc.relpath, text: steps.text.text}
    returns: {folder: f, rows: steps.each.results}
"""
    + OF_FOLDERS.partition("    returns: {folder: f, rows: steps.sub.rows}\n")[2],
    "a pipeline": OF_FOLDERS,
}


@pytest.mark.parametrize("way", IN_FOLDERS)
def test_a_document_that_waits_within_an_item_leaves_the_others_done(
    tmp_path: Path, way: str
) -> None:
    sub = "inputs: {from: {type: dir}}\nsteps:\n" + block(write(STEM), root='"{{ inputs.from }}"')
    world = World(
        tmp_path, IN_FOLDERS[way], {"sub.yaml": sub + "returns: {rows: steps.each.results}\n"}
    )
    world.write("more/own.txt", "own")
    for name in ("report.txt", "other.txt"):
        world.write(f"inbox/{name}", name)
    world.run()

    def rows() -> set[str]:
        return {line.partition(",")[0] for line in world.output("../t.csv").splitlines()[1:]}

    world.write("inbox/report.md", "second")  # of the same folder
    world.write("more/other.md", "third")  # of another one
    world.write("more/new.txt", "new")
    for _ in range(2):
        report = world.run()
        told = [note for note in report.notes if "waits for another item's path" in note]
        assert {note.partition(" ")[0] for note in told} == {"inbox/report.md", "more/other.md"}
        assert rows() == {"report.txt", "other.txt", "own.txt", "new.txt"}
        assert outputs(world).keys() == {"report", "other", "own", "new"}
        assert (report.exit_status(), report.calls) == (0, 0)
    (tmp_path / "inbox/report.txt").unlink()
    (tmp_path / "inbox/other.txt").unlink()
    world.run()
    world.run()
    assert rows() == {"report.md", "other.md", "own.txt", "new.txt"}
    assert {name: text for name, text in outputs(world).items() if name in ("report", "other")} == {
        "report": "second",
        "other": "third",
    }
    assert not world.plan().has_work


@pytest.fixture(params=["as if", "in fact"])
def ignoring_case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Yield a folder that ignores letter case, or is taken for one: a disk that does so is rare."""
    if request.param == "as if":
        monkeypatch.setattr(output_index, "ignores_letter_case", lambda folder: True)
        yield tmp_path
        return
    with TemporaryDirectory(dir=os.environ.get("PADDOCK_TEST_IGNORES_CASE", tmp_path)) as name:
        (Path(name) / "pipeline.yaml").touch()
        if not ignores_letter_case(Path(name)):
            pytest.skip("names that differ in letter case are two files here")
        yield Path(name)


BY_CASE = "out/{{ 'report' if doc.stem == 'b' else 'Report' if doc.stem == 'a' else doc.stem }}"


@pytest.mark.parametrize("way", WAYS)
def test_paths_that_differ_in_letter_case_are_one_where_the_disk_says_so(
    ignoring_case: Path, way: str
) -> None:
    world = world_of(ignoring_case, way, BY_CASE, moves=True)
    for name in ("a.txt", "b.txt", "other.txt"):
        world.write(f"inbox/{name}", name[0])
    planned = {i.key: str(i.why) for i in world.plan().items if i.state == "blocked"}
    report = world.run()
    if way in ("a path", "a nested block", "a pipeline of the item"):  # known before the run
        both = {
            "a.txt": "'out/Report' would be written by 'b.txt', too",
            "b.txt": "'out/report' would be written by 'a.txt', too",
        }
        assert planned == blocked(report) == both
        (ignoring_case / "inbox/a.txt").unlink()
        assert not blocked(world.run())
        world.write("inbox/a.txt", "late")
        report = world.run()
    (left,) = blocked(report)
    assert [path.name for path in (ignoring_case / "inbox").iterdir()] == [left]
    pages = {name.lower(): text for name, text in outputs(world).items()}
    assert pages == {"other": "o", "report": "a" if left == "b.txt" else "b"}


def test_a_page_stays_where_a_path_changes_by_letter_case_alone(ignoring_case: Path) -> None:
    world = world_of(ignoring_case, "a path", STEM)
    world.write("inbox/report.txt", "one")
    world.run()
    for now in ("out/{{ doc.stem | upper }}", "out/{{ doc.stem | title }}"):
        world.edit(STEM if "upper" in now else "out/{{ doc.stem | upper }}", now)
        report = world.run(prune=True, is_confirmed=True)
        assert [*outputs(world).values()][-1:] == ["one"] and not blocked(report)
        assert not world.plan().has_work
