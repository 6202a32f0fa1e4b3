"""Copies of documents in runs: they wait for review, and outputs stay as they are meanwhile."""

import os
from pathlib import Path

import pytest

from tests.runner.world import ReviewedWorld, states

POST = """\
name: post
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: texts
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns:
      document: doc.relpath
      path: doc.path
      sha256: doc.sha256
      modified: doc.modified
      text: steps.text.text
  - id: copies
    uses: duplicates
    with: {rows: "{{ steps.texts.results }}", key: document, content: sha256, text: text}
  - id: each
    for_each: letter in steps.copies.rows
    key: letter.document
    do:
      - id: kind
        uses: chat
        with: {prompt: "Kind of {{ letter.text }}"}
        review: {when: letter.copy_of}
MOVE\
    returns: {document: letter.document, copy_of: letter.copy_of, how: letter.copy_kind}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
"""
MOVE = """\
      - uses: files.move
        with: {path: "{{ letter.path }}", to: "filed/{{ letter.document }}"}
"""
BILL = (
    "Bill of the ferry for 12 ropes and lamps to pay until next week please, thanks and regards "
    "from all of us in the harbour where the boats lie in the evening, and where all ropes and "
    "nets of the past year are kept until someone comes for them"
)


@pytest.fixture
def world(tmp_path: Path) -> ReviewedWorld:
    return ReviewedWorld(tmp_path, POST.replace("MOVE", ""))


def arrive(world: ReviewedWorld, day: int, **texts: str) -> None:
    for name, text in texts.items():
        path = world.write(f"inbox/{name}.txt", text)
        os.utime(path, (day * 86_400, day * 86_400))


def rows(world: ReviewedWorld) -> list[str]:
    return sorted(world.output("t.csv").splitlines()[1:])


def test_a_second_copy_waits_and_the_first_stays_as_it_is(world: ReviewedWorld) -> None:
    arrive(world, 1, b=BILL, z="Another letter, which is about the weather on the sea.")
    world.run()
    arrive(world, 2, a=BILL, c=BILL.replace("12", "13"))
    plan = world.plan()
    assert "What 'each' has to do is unknown until 'texts' has run." in plan.notes
    report = world.run()
    assert report.calls == 1  # of `c`; that of `a` was made before
    assert states(report) == {"a.txt": "waiting", "c.txt": "waiting"}
    assert [[*review.subject.due] for _, review in sorted(world.waiting().items())] == [
        ["Copy of: b.txt"]
    ] * 2
    assert rows(world) == ["b.txt,,", "z.txt,,"]
    (source,) = world.waiting()["c.txt"].subject.sources  # of what an earlier block has read
    assert (source.path, source.media_type) == ("inbox/c.txt", "text/plain")
    assert source.text == BILL.replace("12", "13")
    world.decide("a.txt", "accept")
    world.decide("c.txt", "reject", reason="sent twice")
    world.run()
    assert rows(world) == ["a.txt,b.txt,content", "b.txt,,", "z.txt,,"]
    assert (world.run().calls, world.plan().has_work) == (0, False)


def test_where_the_first_is_deleted_the_next_one_is_the_first(world: ReviewedWorld) -> None:
    for day, name in enumerate("bac"):
        arrive(world, day, **{name: BILL})
    report = world.run(review="accept")
    assert rows(world) == ["a.txt,b.txt,content", "b.txt,,", "c.txt,b.txt,content"]
    (world.folder / "inbox/b.txt").unlink()
    report = world.run(review="accept", prune=True)
    assert (rows(world), report.calls) == (["a.txt,,", "c.txt,a.txt,content"], 0)
    assert world.run(review="accept").written == ()


@pytest.mark.parametrize("expression", ["", " | selectattr('text') | list"])
def test_a_copy_of_a_filed_document_is_told_also_under_its_name(
    tmp_path: Path, expression: str
) -> None:
    world = ReviewedWorld(tmp_path, POST.replace("MOVE", MOVE))
    world.edit("steps.texts.results", f"steps.texts.results{expression}")
    arrive(world, 1, b=BILL)
    world.run()
    arrive(world, 2, b=BILL.replace("lamps", "bells"), a="A letter on the weather and the sea.")
    report = world.run()
    assert {key for key, state in states(report).items() if state == "waiting"} == {"b.txt#2"}
    world.decide_all("accept")
    world.run()
    made = ["a.txt,,", "b.txt,,", "b.txt,b.txt,alike"]
    assert rows(world) == made
    world.edit("Kind of", "What is")
    world.run(review="accept")
    assert (rows(world), world.run().written) == (made, ())
