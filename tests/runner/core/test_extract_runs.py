"""Extracts in a run: fresh, stale, planned and traced like any other step's outputs."""

from pathlib import Path

from tests.runner.world import World

PIPELINE = """\
inputs:
  how: {type: enum, values: [extract, write], default: extract}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: sum, uses: summarise, with: {file: "{{ doc.path }}", how: extract, words: 12}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {lines: "steps.sum.sentences | map(attribute='line') | list"}
returns: {all: steps.each.results}
"""


def made(folder: Path) -> World:
    world = World(folder, PIPELINE)
    for number in range(3):
        lines = (f"On day {n} ferry {number} left at noon." for n in range(9))
        world.write(f"inbox/{number}.txt", "\n\n".join(lines))
    return world


def test_only_a_changed_document_is_embedded_again_and_the_plan_tells_it(tmp_path: Path) -> None:
    world = made(tmp_path)
    assert (world.plan().calls, world.plan().calls_are) == (3, "exact")
    report = world.run()
    assert (report.calls, len(world.pool.embeds), world.pool.chats) == (3, 3, [])
    assert [len(result["lines"]) for result in report.returns["all"]] == [1, 1, 1]
    assert (tmp_path / "out/1.txt").read_text().endswith("ferry 1 left at noon.")
    assert (world.plan().calls, world.run().calls) == (0, 0)
    world.write("inbox/1.txt", "The ferry never came. All of us had gone home again by then.")
    assert (world.plan().calls, world.run().calls) == (1, 1)


def test_another_number_of_words_asks_for_no_vector_again(tmp_path: Path) -> None:
    world = made(tmp_path)
    world.run()
    world.edit("words: 12", "words: 20")
    report = world.run()
    assert (report.calls, report.cached_calls) == (0, 3)
    assert [len(result["lines"]) for result in report.returns["all"]] == [2, 2, 2]


def test_an_input_may_choose_between_extract_and_write(tmp_path: Path) -> None:
    world = made(tmp_path)
    world.edit("how: extract, words", 'how: "{{ inputs.how }}", words')
    world.run()
    assert (len(world.pool.embeds), len(world.pool.chats)) == (3, 0)
    world.run({"how": "write"})
    assert (len(world.pool.embeds), len(world.pool.chats)) == (0, 3)
