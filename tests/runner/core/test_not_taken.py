"""Files of scanned folders that no pattern takes are counted: in plan, run, report and JSON."""

import json
from pathlib import Path

from paddock.runner.cli.plan_text import plan_text
from paddock.runner.ledger.run_store import RunStore
from tests.runner.world import Notes, World

LETTERS = """\
inputs: {rates: {type: path, default: inbox/rates.json}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox, include: ["*.txt"], exclude: ["old/"]}}
  - {id: prices, uses: files.rows, with: {path: inbox/prices.csv}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "inbox/{{ doc.stem }}.out", text: "{{ steps.text.text }}"}}
"""
LINE = "5 files are not taken: 2 png, 3 xlsx."


def letters(folder: Path) -> World:
    files = ["1.png", "sub/2.PNG", "a.xlsx", "b.xlsx", "sub/c.xlsx"]
    files += [".hidden", "~$a.docx", "b.pdf.part", "Thumbs.db", "old/letter.doc", "rates.json"]
    beside = {f"inbox/{name}": "x" for name in files} | {"inbox/prices.csv": "a\n1\n"}
    return World(folder, LETTERS, beside, n_documents=2)


def test_what_no_pattern_takes_is_a_line_of_plan_run_and_report(tmp_path: Path) -> None:
    world = letters(tmp_path)
    for _ in range(2):  # of a run with nothing new, too; what it wrote itself does not count
        plan, told = world.plan(), Notes()
        assert plan.as_json()["not_taken"] == {"png": 2, "xlsx": 3}
        assert LINE in plan_text(plan).splitlines()
        report = world.run(observer=told)
        assert report.as_json()["not_taken"] == {"png": 2, "xlsx": 3}
        assert told.texts == [LINE]
    with world.ledger() as ledger:
        (row, *_) = RunStore(ledger).runs()
        assert json.loads(row.summary or "")["not_taken"] == {"png": 2, "xlsx": 3}


def test_what_another_scan_takes_or_a_pattern_leaves_out_is_no_loss(tmp_path: Path) -> None:
    world = letters(tmp_path)
    world.edit(
        "  - {id: prices",
        '  - {id: more, uses: files.scan, with: {root: inbox, include: ["*.xlsx", "!*.png"]}}\n'
        "  - {id: prices",
    )
    assert world.run().not_taken == {"doc": 1, "png": 1}
    world.edit('["*.txt"]', '["*.txt", "!*.png", "!*.PNG"]')
    assert world.run().not_taken == {"doc": 1}


def test_what_no_pattern_of_a_hot_folder_takes_is_told_as_well(tmp_path: Path) -> None:
    on = 'on: {watch: {path: inbox, claim: move, include: ["*.txt"], exclude: ["old/"]}}\n'
    text = on + LETTERS.replace("root: ./inbox", "root: ./inbox/processing")
    files = ["a.png", "late/b.XLSX", "done/c.png", "failed/d.png", "old/e.doc", ".~lock.a#"]
    files += ["f.txt", "prices.csv", "processing/g.txt"]
    world = World(tmp_path, text, {f"inbox/{name}": "a\n1\n" for name in files})
    assert world.plan().not_taken == {"png": 1, "xlsx": 1}
    assert world.run().not_taken == {"png": 1, "xlsx": 1}
