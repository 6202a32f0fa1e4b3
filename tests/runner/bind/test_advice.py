"""Authors are told of documents that several prompts could share, and of nothing else."""

from pathlib import Path

import pytest

from paddock.runner.api import validate
from tests.runner.world import World, each_document

HEAD = """\
models: {writer: {ref: smollm2:135m}}
""" + each_document("""\
""")


def chat(id_: str, prompt: str, extra: str = "") -> str:
    return f'      - {{id: {id_}, uses: chat, with: {{prompt: "{prompt}"{extra}}}}}\n'


def notes(folder: Path, *steps: str) -> tuple[str, ...]:
    report = validate(World(folder, HEAD + "".join(steps)).file)
    assert report.ok, report.faults
    return report.notes


def test_steps_that_read_a_document_behind_different_words_are_named(tmp_path: Path) -> None:
    steps = (
        chat("sum", "Sum up: {{ steps.text.text }}"),
        chat("who", "Who? {{ steps.text.text }}"),
        chat("cost", "{{ steps.text.text }} What did it cost?", ", system: Be brief."),
    )
    (note,) = notes(tmp_path, *steps)
    assert note == (
        "'sum', 'who' and 'cost' read `steps.text.text` behind different words. Put it first in "
        "each `prompt`, with the same `system`: it is then computed once instead of 3 times. "
        "Prompts in another order may get other answers."
    )
    world = World(tmp_path, HEAD + "".join(steps), n_documents=1)
    assert note in world.plan().advice


@pytest.mark.parametrize(
    "steps",
    [
        (chat("sum", "{{ steps.text.text }} Sum up."), chat("who", "{{ steps.text.text }} Who?")),
        (chat("sum", "Sum up: {{ steps.text.text }}"), chat("who", "Who? {{ steps.sum.text }}")),
        (chat("sum", "Sum up: {{ steps.text.text }}"),),
        (chat("sum", "{{ doc.name }}: {{ steps.text.text }}"),),
        (
            chat("sum", "Sum up: {{ steps.text.text }}"),
            chat("who", "{% if doc.size > 9 %}{{ steps.text.text }}{% endif %} Who?"),
        ),
    ],
    ids=["shared", "an answer", "one reader", "the same for all", "not always"],
)
def test_nothing_is_said_where_nothing_could_be_shared(
    tmp_path: Path, steps: tuple[str, ...]
) -> None:
    assert notes(tmp_path, *steps) == ()


READS = "  - {id: n, uses: files.write, with: {path: n.txt, text: 'TEXT'}}\n"
RUNS = "  - {id: sub, uses: pipeline, with: {file: inner.yaml}}\n"
TELLS = (
    "pipeline.yaml:8:10: step 'n' reads `steps.each.counts.new`, which tells of the run: the next "
    "one counts otherwise, though nothing has changed. Name a count of the list: `done`, "
    "`skipped`, `failed`, `quarantined`, `waiting`, `blocked`."
)


@pytest.mark.parametrize(
    ("steps", "reads"),
    [
        (READS.replace("TEXT", "{{ steps.each.counts.new }}"),
         "step 'n' reads `steps.each.counts.new`"),
        (READS.replace("TEXT", "{{ steps.each.counts | tojson }}"),
         "step 'n' reads `steps.each.counts`"),
        (READS.replace("'TEXT'}", "x}, if: steps.each.counts.fresh > 0"),
         "reads `steps.each.counts.fresh`"),
        (READS.replace("TEXT", "{% set c = steps.each.counts %}{{ c.new }}"),
         "`steps.each.counts`"),
        (RUNS + READS.replace("TEXT", "{{ steps.sub.n.deleted }}"), "`steps.sub.n.deleted`"),
        (RUNS + READS.replace("TEXT", "{{ steps.sub.all }}"), "`steps.sub.all`"),
        (READS.replace("TEXT", "{{ steps.each.counts.done }} {{ steps.each.changed }}"), None),
        (RUNS + READS.replace("TEXT", "{{ steps.sub.n.skipped }} {{ steps.sub.texts }}"), None),
        ("returns: {n: steps.each.counts, new: steps.each.counts.new}\n", None),
    ],
)  # fmt: skip
def test_who_reads_counts_of_the_run_is_warned(
    tmp_path: Path, steps: str, reads: str | None
) -> None:
    inner = each_document("") + (
        "returns:\n  n: steps.each.counts\n  all: 'steps.each.counts.new + 1'\n"
        "  texts: steps.each.results\n"
    )
    (tmp_path / "inner.yaml").write_text(inner)
    found = notes(tmp_path, steps)
    assert len(found) == (reads is not None)
    assert reads is None or reads in found[0]
    if reads is not None and "counts.new" in reads:
        assert found == (f"{tmp_path}/{TELLS}",)


FILES = '      - {uses: files.move, with: {path: "{{ doc.path }}", to: done/}}\n'
POSTS = "  - {id: post, uses: run, with: {command: [echo, --, 'TEXT']}}\n"
ALL, NEW = "{{ steps.each.results | length }}", "{{ steps.each.changed | length }}"


@pytest.mark.parametrize(
    ("steps", "is_warned"),
    [
        (FILES + POSTS.replace("TEXT", ALL), True),
        (FILES + POSTS.replace("TEXT", ALL + NEW), False),
        (FILES + POSTS.replace("'TEXT']}", f"'{ALL}']}}, if: steps.each.changed"), False),
        (FILES + READS.replace("TEXT", ALL), False),
        (POSTS.replace("TEXT", ALL), False),
    ],
    ids=["all", "its keys", "if new", "a file", "nothing is filed"],
)
def test_who_acts_on_all_that_was_ever_filed_is_warned(
    tmp_path: Path, steps: str, is_warned: bool
) -> None:
    found = notes(tmp_path, steps)
    assert len(found) == is_warned
    assert not is_warned or found[0].startswith(f"{tmp_path}/pipeline.yaml:9:10: step 'post' reads")


@pytest.mark.parametrize(
    ("params", "cache", "is_warned"),
    [
        ("{temperature: 1}", "off", True),
        ("{temperature: 1, seed: 3}", "off", True),
        ('{temperature: 1, seed: "{{ doc.size }}"}', "off", False),
        ("{temperature: 0}", "off", False),
        ("{temperature: 1}", "auto", False),
    ],
)
def test_who_asks_again_by_one_seed_is_told_so(
    tmp_path: Path, params: str, cache: str, is_warned: bool
) -> None:
    step = chat("sum", "Sum up.", f", params: {params}").replace("uses", f"cache: {cache}, uses")
    found = notes(tmp_path, step)
    assert len(found) == is_warned
    assert not is_warned or "by one seed: equal prompts get equal answers." in found[0]
