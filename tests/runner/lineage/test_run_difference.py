"""What a run did otherwise than an earlier one, on the console: items, states, words of answers."""

import re
from pathlib import Path

import httpx

from paddock.engine.request import ChatRequest
from paddock.runner.lineage.run_difference import MOST_EQUAL_PAIRS, RunItemChange, change_rows
from tests.fakes.pool import FakePool
from tests.runner.cli.test_web_console import links, served, signed_in
from tests.runner.world import World

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
