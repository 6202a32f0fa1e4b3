"""Answers that only skipped steps would use are not asked for, as a plan says before."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.runner.progress.report import Report
from tests.runner.world import World, each_document

BODY = """\
inputs: {most: 20, publish: true}
""" + each_document("""\
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - {id: size, uses: prompt, with: {template: "{{ steps.text.text | length }}"}}
      - id: page
        uses: files.write
        if: steps.size.text | int > inputs.most
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}
""")
NOTE = "'sum': 2 answers not asked for, since only 'page' uses it and is skipped (0.txt, 2.txt)."


MARK = "paddock.runner.bind.unused_answers.mark_unused"


def world_of(folder: Path, text: str = BODY) -> World:
    world = World(folder, text)
    for name, content in ("0.txt", "short"), ("1.txt", "long " * 9), ("2.txt", "brief"):
        world.write(f"inbox/{name}", content)
    return world


def planned_and_run(world: World, **inputs: object) -> Report:
    """Run, and compare calls and notes with the plan before."""
    plan, report = world.plan(inputs), world.run(inputs)
    assert (plan.calls, plan.calls_are) == (report.calls, "exact")
    assert [n for n in plan.remarks if "asked for" in n] == [
        n for n in report.notes if "asked for" in n
    ]
    assert world.plan(inputs).calls == 0
    return report


def test_a_condition_that_needs_no_model_is_looked_at_before_the_call(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    report = planned_and_run(world)
    assert (report.calls, report.notes) == (1, (NOTE,))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.txt"]


def test_the_call_is_made_once_its_condition_turns_true(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.run()
    world.write("inbox/2.txt", "brief no more, but long")
    assert planned_and_run(world).calls == 1
    assert planned_and_run(world, most=3).calls == 1, "the answers of the others are known"
    assert planned_and_run(world, most=99).calls == 0


def test_nothing_that_has_effects_is_moved(tmp_path: Path) -> None:
    """A file is read behind the step that writes it, so the call in front of both is made."""
    write = '{uses: files.write, with: {path: "size/{{ doc.relpath }}", text: "{{ doc.size }}"}}'
    read = '{id: size, uses: files.read, with: {path: "size/{{ doc.relpath }}"}}'
    prompt = '{id: size, uses: prompt, with: {template: "{{ steps.text.text | length }}"}}'
    world = world_of(tmp_path)
    world.edit(prompt, f"{write}\n      - {read}")
    assert world.run().calls == 3
    assert (tmp_path / "size/0.txt").read_text() == "5"


def test_a_condition_that_an_earlier_answer_decides_saves_the_later_call(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.edit(
        "      - {id: sum",
        '      - {id: kind, uses: chat, with: {prompt: "Kind of {{ steps.text.text }}"}}\n'
        "      - {id: sum",
    )
    world.edit("steps.size.text | int > inputs.most", "(steps.kind.text | length) > 30")
    plan, report = world.plan(), world.run()
    assert (plan.least_calls, plan.calls, plan.calls_are) == (3, 6, "at most")
    assert report.calls == 4
    assert len(report.notes) == 1


def test_a_skipped_step_that_is_read_skips_as_a_condition_does(tmp_path: Path) -> None:
    """The page has no condition of its own, but the heading that it reads has one."""
    world = world_of(tmp_path)
    condition = "        if: steps.size.text | int > inputs.most\n"
    world.edit(condition, "")
    head = "{id: head, uses: prompt, if: steps.size.text | int > inputs.most, with: {template: H}}"
    world.edit("      - id: page", f"      - {head}\n      - id: page")
    world.edit("{{ steps.sum.text }}", "{{ steps.head.text }} {{ steps.sum.text }}")
    assert planned_and_run(world).notes == (NOTE,)


TOP = (
    BODY
    + """\
    returns: {text: steps.text.text}
  - {id: all, uses: chat, with: {prompt: "All: {{ steps.each.results }}"}}
  - id: report
    uses: files.write
    if: inputs.publish
    with: {path: out/ALL.md, text: "{{ steps.all.text }}"}
"""
)


def test_a_step_at_the_top_is_left_out_and_done_when_it_is_used(tmp_path: Path) -> None:
    world = world_of(tmp_path, TOP)
    assert {item.step for item in world.plan({"publish": False}).items} == {"each"}
    report = planned_and_run(world, publish=False)
    assert report.calls == 1
    assert (
        "'all': 1 answer not asked for, since only 'report' uses it and is skipped." in report.notes
    )
    assert not (tmp_path / "out/ALL.md").exists()
    assert planned_and_run(world, publish=True).calls == 1
    assert (tmp_path / "out/ALL.md").exists()


def random_steps(chance: random.Random) -> Iterator[str]:
    """Yield the steps of an item: calls, texts and files, some with conditions over others."""
    names = ["text"]
    yield "{id: text, uses: files.read, with: {path: '{{ doc.path }}'}}"
    for number in range(chance.randint(3, 7)):
        name, kind = f"s{number}", chance.choice(("chat", "chat", "prompt", "write"))
        read = chance.sample(names, chance.randint(1, min(2, len(names))))
        told = chance.choice(("text", "text", "text", "skipped"))
        text = " ".join(f"{{{{ steps.{other}.{told} }}}}," for other in read)
        step = f"id: {name}, " + f"needs: {chance.choice(names)}, " * (chance.random() < 0.2)
        if chance.random() < (0.9 if kind == "write" else 0.2):
            condition = f"(steps.{chance.choice(names)}.text or '') | length"
            step += f'if: "({condition}) > {chance.choice((3, 8, 20, 40))}", '
        if kind == "write":
            path = f"out/{name}/{{{{ doc.relpath }}}}"
            yield f"{{{step}uses: files.write, with: {{path: '{path}', text: '{text}'}}}}"
            continue
        word = {"chat": "prompt", "prompt": "template"}[kind]
        yield f"{{{step}uses: {kind}, with: {{{word}: '{name} {text}'}}}}"
        names.append(name)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_made_is_the_same_as_with_all_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    body = "".join(f"      - {step}\n" for step in random_steps(chance))
    returns = chance.choice(("", "    returns: {text: steps.text.text}\n"))
    text = (
        BODY[: BODY.index("      - {id: text")]
        + body
        + returns
        + "returns: {all: steps.each.results}\n"
    )
    world = world_of(tmp_path / "without", text)
    plan, report = world.plan(), world.run()
    assert plan.calls is not None
    assert plan.least_calls is not None
    assert plan.least_calls <= report.calls <= plan.calls
    assert plan.calls_are != "exact" or plan.calls == report.calls
    with monkeypatch.context() as all_asked:
        all_asked.setattr(MARK, lambda nodes, *_, **__: nodes)
        other = world_of(tmp_path / "with", text)
        asked = other.run()
    assert report.calls <= asked.calls
    results = str(report.returns).replace(str(world.folder), str(other.folder))
    assert results == str(asked.returns)
    assert files_of(world) == files_of(other)
    assert not other.plan().has_work


def files_of(world: World) -> dict[str, str]:
    paths = (path for path in (world.folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(world.folder)): path.read_text() for path in paths}
