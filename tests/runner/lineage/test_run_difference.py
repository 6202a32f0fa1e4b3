"""What a run did otherwise than an earlier one, on the console: items, states, words of answers."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.lineage.run_difference import MOST_EQUAL_PAIRS, RunItemChange, change_rows
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.cli.test_web_console import links, served, signed_in
from tests.runner.world import World, carried_out

MARKUP = "<script>window.hacked = 1</script>"


def says(**answers: str) -> FakePool:
    """Return a pool that answers by the first word of answers' names that a prompt has."""

    def answer(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        return next((text for word, text in answers.items() if word in prompt), "nothing")

    return FakePool(answer=answer)


def difference(client: httpx.Client, run: str, **query: str) -> list[list[str]]:
    """Return the cells of the rows of a difference: item, step, state, answer."""
    page = client.get(f"/ui/runs/{run}/difference", params=query)
    assert page.status_code == 200, page.text
    rows = page.text.partition("<tbody>")[2].split("<tr>")[1:]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]


def test_the_difference_of_two_runs_has_items_states_and_words(
    world: World, tmp_path: Path
) -> None:
    for name in ("dog", "cat", "emu", "owl"):
        world.write(f"inbox/{name}.txt", name)
    first = world.run(pool=says(dog="A red dog.", cat="A cat.", emu="An emu.", owl="An owl.")).run
    world.edit("Sum up:", "Sum it up:")
    (tmp_path / "inbox/owl.txt").unlink()
    world.write("inbox/bat.txt", "bat")
    second = world.run(
        pool=says(dog=f"A big red dog. {MARKUP}", cat="A cat.", bat="A bat."), is_confirmed=True
    ).run
    world.write("inbox/dog.txt", "dog again")
    third = world.run(pool=says(dog="A red dog.")).run
    with served(tmp_path) as address, signed_in(address) as client:
        runs = {link.rpartition("/")[2]: link for link in links(client, "/ui/runs", "/ui/runs/")}
        place = runs[third].split("/")[-2]
        assert f"{runs[second]}/difference" in client.get(runs[second]).text
        rows = {row[0]: row[1:] for row in difference(client, f"{place}/{second}")}
        assert sorted(rows) == ["digest", "dog.txt", "emu.txt", "owl.txt"]
        assert rows["dog.txt"][:2] == ["each", '<span class="s-done">done</span>']
        assert rows["dog.txt"][2] == (
            "A<ins> big</ins> red dog.<ins> &lt;script&gt;window.hacked = 1&lt;/script&gt;</ins>"
        )
        assert rows["emu.txt"][2] == "<del>An emu.</del><ins>nothing</ins>"
        assert "done</span> → " in rows["owl.txt"][1]
        assert "deleted</span>" in rows["owl.txt"][1]
        assert [row[0] for row in difference(client, f"{place}/{second}", show="added")] == [
            "bat.txt"
        ]
        left = [row[0] for row in difference(client, f"{place}/{third}", show="left")]
        assert {"bat.txt", "cat.txt", "emu.txt"} <= set(left)
        assert difference(client, f"{place}/{third}", before=first) == []  # it says the same again
        for query in ({"before": "none"}, {"before": third}):
            answer = client.get(f"/ui/runs/{place}/{third}/difference", params=query)
            assert answer.status_code == 404
        assert client.get(f"/ui/runs/{place}/{first}/difference").status_code == 404


def test_an_answer_that_an_earlier_run_took_from_the_cache_is_found_by_its_call(
    world: World, tmp_path: Path
) -> None:
    for name in ("dog", "cat"):
        world.write(f"inbox/{name}.txt", name)
    world.run(pool=says(dog="A red dog.", cat="A cat."))
    world.edit("Sum up:", "Sum it up:")
    world.run(pool=says(dog="A dog.", cat="Another cat."), is_confirmed=True)
    world.edit("Sum it up:", "Sum up:")
    cached = world.run(pool=FakePool(), is_confirmed=True)
    assert (cached.calls, cached.cached_calls) == (0, 3)
    world.edit("Sum up:", "Sum all up:")
    last = world.run(pool=says(dog="A big red dog.", cat="A cat."), is_confirmed=True).run
    with served(tmp_path) as address, signed_in(address) as client:
        (link,) = links(client, "/ui/runs", f"/{last}$")
        run = link.removeprefix("/ui/runs/")
        rows = {row[0]: row[3] for row in difference(client, run, before=cached.run)}
        assert rows == dict.fromkeys(("digest", "dog.txt"), "A<ins> big</ins> red dog.")
    journal = tmp_path / f".paddock/runs/{cached.run}.jsonl"  # as earlier versions wrote it
    journal.write_text(re.sub(r', "chats": \[[^]]*\]', "", journal.read_text()))
    with served(tmp_path) as address, signed_in(address) as client:
        assert difference(client, run, before=cached.run) == []
        rows = {
            row[0]: row[3] for row in difference(client, run, before=cached.run, show="unknown")
        }
        assert rows.keys() == {"cat.txt", "digest", "dog.txt"}
        assert rows["cat.txt"] == "A cat."


def test_answers_that_repeat_too_many_words_are_not_compared() -> None:
    words = " ".join(["so"] * (int(MOST_EQUAL_PAIRS**0.5) + 1))
    change = RunItemChange("each", "<b>", "done", "failed", words, f"{words} <i>")
    ((_, answer),) = change_rows([change])
    assert "Too much to compare word by word here." in answer
    assert answer.count("<del>") == answer.count("<ins>") == 1
    assert "<i>" not in answer


COPIES = """\
name: copies
steps:
  - {id: docs, uses: files.scan, with: {root: ./in}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
"""
ECHOES = """\
name: echoes
inputs: {folder: {type: dir, default: ./in}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: said, uses: run, with: {command: [cat, "{{ doc.path }}"]}}
    returns: {said: steps.said.stdout}
"""


def counted_as(world: World, before: Report, after: Report) -> dict[str, int]:
    """Return how many items count as what in the difference of two runs."""
    with served(world.folder) as address, signed_in(address) as client:
        (link,) = links(client, "/ui/runs", f"/{after.run}$")
        page = client.get(f"{link}/difference", params={"before": before.run}).text
    found = re.findall(r">(Changed|Not known|Made again)[^<]*: ([\d,]+)<", page)
    (alike,) = re.findall(r"([\d,]+) are\s+alike", page)
    return {words: int(n) for words, n in [*found, ("alike", alike)] if int(n)}


@pytest.mark.parametrize("text", [COPIES, ECHOES])
def test_items_without_models_whose_content_is_not_on_record_are_not_alike(
    tmp_path: Path, text: str
) -> None:
    world = World(tmp_path, text)
    runs = []
    for content in ("one\n", "two and three\n", "four, five, six\n"):
        world.write("in/a.txt", content)
        runs.append(carried_out(world))
        if len(runs) == 2:
            assert counted_as(world, *runs) == {"Made again": 1}
    assert [run.status for run in runs] == ["completed"] * 3
    for before, after in ((0, 1), (1, 2), (0, 2)):
        assert counted_as(world, runs[before], runs[after]) == {"Made again": 1}


def test_results_and_errors_that_are_on_record_of_both_runs_are_compared(tmp_path: Path) -> None:
    world = World(tmp_path, ECHOES)
    for folder, name, text in (("a", "same", "1"), ("b", "same", "1"), ("a", "other", "2")):
        world.write(f"{folder}/{name}.txt", text)
    world.write("b/other.txt", "3")
    runs = [carried_out(world, inputs={"folder": str(tmp_path / folder)}) for folder in "ab"]
    assert counted_as(world, *runs) == {"Changed": 1, "alike": 1}
    world.write("c/bad.txt", "1")
    world.edit("command: [cat,", "command: [ls, --no-such-option,")
    runs = [
        carried_out(world, inputs={"folder": str(tmp_path / "c")}, retry_failed=True) for _ in "123"
    ]
    assert counted_as(world, *runs[:2]) == {"alike": 1}


def test_answers_that_were_removed_or_replaced_are_not_alike(world: World, tmp_path: Path) -> None:
    world.write("inbox/dog.txt", "dog")
    runs = [world.run(pool=says(dog="A red dog."))]
    world.edit("Sum up:", "Sum it up:")
    world.run(pool=says(dog="A dog."), is_confirmed=True)
    world.edit("Sum it up:", "Sum up:")
    runs.append(world.run(pool=FakePool(), is_confirmed=True))
    assert runs[1].cached_calls == 2
    assert counted_as(world, *runs) == {"alike": 2}
    force = frozenset(("each", "digest"))
    runs.append(world.run(pool=says(dog="A red dog."), force=force, no_cache=True))
    assert runs[2].calls == 2
    assert counted_as(world, *runs[1:]) == {"Not known": 2}
    with closing(sqlite3.connect(tmp_path / ".paddock/ledger.sqlite")) as ledger, ledger:
        ledger.execute("delete from calls")
    for before, after in ((0, 1), (1, 2), (0, 2)):
        assert counted_as(world, runs[before], runs[after]) == {"Not known": 2}
