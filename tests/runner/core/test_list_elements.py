"""Elements of lists in answers as items of their own: which are stale, and which are pruned."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.filters import unnest
from tests.fakes.pool import FakePool
from tests.runner.world import ReviewedWorld, each_document

BILLS = """\
name: bills
""" + each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "Bill: {{ steps.text.text }}"}
        reply: {schema: {total: int, lines: [{article: str, n: int}]}}
        review: {when: output.total > 100}
    returns: {document: doc.relpath, total: steps.bill.output.total, lines: steps.bill.output.lines}
  - id: lines
    for_each: line in steps.each.results | unnest("lines", "document")
    key: line.key
    do:
      - id: kind
        uses: chat
        with: {prompt: "Kind of {{ line.article }}"}
        review: {when: line.n > 5}
      - uses: files.write
        with:
          path: "out/{{ line.document }}/{{ line.article }}-{{ line.n }}.txt"
          text: "{{ steps.kind.text }}"
    returns: {document: line.document, article: line.article, n: line.n}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.lines.results }}"}}
""")


def answer(request: ChatRequest) -> str:
    prompt = request.messages[-1].content
    return prompt.partition("Bill: ")[2].partition("\n")[0] or f"[{prompt}]"


class Bills(ReviewedWorld):
    def run(self, *args: Any, **options: Any) -> Any:
        return super().run(*args, pool=FakePool(answer=answer), **options)

    def arrive(self, name: str, *lines: tuple[str, int], total: int = 1) -> None:
        said = [{"article": article, "n": n} for article, n in lines]
        self.write(f"inbox/{name}", json.dumps({"total": total, "lines": said}))

    def rows(self) -> list[str]:
        return self.output("t.csv").splitlines()[1:]

    def written(self) -> list[str]:
        files = (self.folder / "out").rglob("*-*.txt")
        return sorted(path.relative_to(self.folder / "out").as_posix() for path in files)


@pytest.fixture
def world(tmp_path: Path) -> Bills:
    world = Bills(tmp_path, BILLS)
    world.arrive("a.txt", ("rope", 1), ("lamp", 2))
    world.arrive("b.txt", ("rope", 1))
    world.arrive("none.txt")
    return world


def test_an_element_that_is_put_in_front_makes_no_other_one_stale(world: Bills) -> None:
    assert world.run().calls == 5  # two ropes are asked about once
    assert world.rows() == ["a.txt,rope,1", "a.txt,lamp,2", "b.txt,rope,1"]
    world.arrive("a.txt", ("bell", 3), ("rope", 1), ("lamp", 2), total=2)
    report = world.run()
    assert report.calls == 2  # of the bill and the bell
    assert [(item.step, item.state) for item in report.items if item.state != "fresh"] == [
        ("each", "changed"), ("lines", "new"),
    ]  # fmt: skip
    assert world.rows() == ["a.txt,bell,3", "a.txt,rope,1", "a.txt,lamp,2", "b.txt,rope,1"]
    assert (world.run().calls, world.plan().has_work) == (0, False)


def test_an_element_that_disappears_is_pruned_and_no_other_one(world: Bills) -> None:
    world.run()
    assert world.written() == ["a.txt/lamp-2.txt", "a.txt/rope-1.txt", "b.txt/rope-1.txt"]
    world.arrive("a.txt", ("rope", 1), ("lamp", 3))
    assert world.run().calls == 1  # of a lamp was asked before
    assert world.written() == [
        "a.txt/lamp-2.txt", "a.txt/lamp-3.txt", "a.txt/rope-1.txt", "b.txt/rope-1.txt",
    ]  # fmt: skip
    report = world.run(prune=True)
    assert world.written() == ["a.txt/lamp-3.txt", "a.txt/rope-1.txt", "b.txt/rope-1.txt"]
    (world.folder / "inbox/b.txt").unlink()
    report = world.run(prune=True)
    assert world.written() == ["a.txt/lamp-3.txt", "a.txt/rope-1.txt"]
    assert world.rows() == ["a.txt,rope,1", "a.txt,lamp,3"]
    assert report.calls == 0


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ('unnest("total", "document")', "unnest: 'total' of row 1 is no list"),
        ('map(attribute="lines") | unnest("lines", "n")', "unnest takes rows, and number 1"),
        ('list | unnest("line", "document")', "unnest: no row has 'line'"),
        ('list | unnest("lines", "day")', "unnest: row 1 has no 'day'"),
    ],
)
def test_what_cannot_be_unnested_is_told(world: Bills, filter_: str, message: str) -> None:
    world.edit('unnest("lines", "document")', filter_)
    report = world.run()
    assert (report.status, message in (report.message or "")) == ("failed", True)


def test_a_list_of_100000_and_of_odd_elements_is_unnested() -> None:
    rows = [{"bill": 1, "lines": [{"n": n} for n in range(100_000)], "day": "x"}]
    found = unnest(rows, "lines", "bill", "day")
    assert (len({row["key"] for row in found}), found[-1]["n"], found[-1]["day"]) == (
        100_000, 99_999, "x",
    )  # fmt: skip
    odd = [{"bill": "a", "x": [[1, [2]], float("nan"), None, "é"]}, {"bill": "b", "x": []}]
    assert [row["x"] for row in unnest(odd, "x", "bill")][::3] == [[1, [2]], "é"]
    assert unnest([], "x", "bill") == []
    for both, name in (({"key": 1}, "key"), ({"bill": 1}, "bill")):
        with pytest.raises(ValueError, match=f"'x' of row 1 has a '{name}' of its own"):
            unnest([{"bill": "a", "x": [both]}], "x", "bill")


def test_the_elements_of_filed_documents_keep_their_rows(world: Bills) -> None:
    start = world.text.index("      - uses: files.write")
    world.edit(world.text[start : world.text.index("    returns: {document: line")], "")
    to = '{path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}'
    move = f"      - {{uses: files.move, with: {to}}}\n"
    world.edit("    returns: {document: doc", f"{move}    returns: {{document: doc")
    world.run()
    world.arrive("a.txt", ("rope", 1), ("bell", 1))  # another bill of that name
    assert world.run().calls == 2
    made = ["a.txt,rope,1", "a.txt,lamp,2", "a.txt,rope,1", "a.txt,bell,1", "b.txt,rope,1"]
    assert world.rows() == made
    report = world.run(prune=True)
    assert (report.calls, report.written, world.plan().has_work) == (0, (), False)
    world.edit("Kind of", "What is")
    assert (world.run().calls, world.rows()) == (3, made)
