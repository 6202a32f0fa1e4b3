"""Two pipelines of one ledger never write one path; a predecessor that is gone hands over."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run, run_async
from paddock.runner.core.run_options import RunOptions
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.world import errors, run_arguments, settings

TABLE = """steps: [{id: table, uses: files.write, with: {path: out/t.csv, text: "NAME"}}]"""
ITEMS = """steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: chat, with: {prompt: "NAME {{ doc.stem }}"}}
      - {id: page, uses: files.write, with: {path: "out/{{ doc.stem }}.csv", text: "NAME"}}
"""
LATE = ITEMS.replace('"out/{{ doc.stem }}.csv"', '"out/{{ steps.text.text.split()[-1] }}.csv"')
WITHIN = """inputs: {out: {type: dir, default: out}}
steps:
  - id: sub
    uses: pipeline
    with: {file: lib/inner.yaml, inputs: {text: "NAME", out: "{{ inputs.out }}"}}
"""
INNER = """inputs: {text: {type: str}, out: {type: dir}}
steps:
  - id: table
    uses: files.write
    with: {path: "{{ inputs.out }}/t.csv", text: "{{ inputs.text }}"}
"""
KINDS = {"table": TABLE, "items": ITEMS, "late": LATE, "within": WITHIN}


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "inbox").mkdir()
        (path / "lib").mkdir()
        (path / "out").mkdir()
        (path / "inbox/t.txt").write_text("t")
        (path / "lib/inner.yaml").write_text(INNER)

    @property
    def table(self) -> Path:
        return self.path / "out/t.csv"

    @property
    def there(self) -> str | None:
        return self.table.read_text() if self.table.exists() else None

    def write(self, name: str, kind: str) -> None:
        (self.path / f"{name}.yaml").write_text(KINDS[kind].replace("NAME", name))

    def run(self, name: str, inputs: Any = None, **options: Any) -> Report:
        pool = FakePool(answer=lambda request: request.messages[-1].content)
        own = settings(self.path)
        arguments = run_arguments(local=True, settings=own, pool=pool, **options)
        return run(self.path / f"{name}.yaml", inputs, *arguments)

    def plan(self, name: str) -> Any:
        file = self.path / f"{name}.yaml"
        return plan(file, None, RunOptions(), pool=FakePool(), settings=settings(self.path))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("kind", ["table", "items", "within"])
def test_the_second_pipeline_is_refused_with_the_name_of_the_first(
    folder: Folder, kind: str
) -> None:
    folder.write("a", "table")
    folder.write("b", kind)
    folder.run("a")
    for attempt in (folder.run, folder.plan):
        with pytest.raises(PipelineError) as caught:
            attempt("b")
        (fault,) = caught.value.faults
        assert fault.message == "'out/t.csv' is an output of another pipeline, 'a.yaml'."
        assert "`--take`" in fault.remedy
    assert folder.there == "a"
    assert folder.plan("a").items == ()


def test_a_pipeline_of_a_sub_folder_keeps_what_is_not_its_own(folder: Folder) -> None:
    folder.write("a", "table")
    folder.run("a")
    report = folder.run("lib/inner", {"text": "below", "out": str(folder.path / "out")})
    assert ([item.state for item in report.items], folder.there) == (["held"], "a")
    folder.write("a", "items")
    folder.run("a")
    assert folder.there == "a"


async def test_of_two_that_run_at_once_one_writes(folder: Folder) -> None:
    pool = FakePool(together=2)
    attempts = []
    for name in ("a", "b"):
        folder.write(name, "items")
        options = run_arguments(local=True, settings=settings(folder.path), pool=pool)
        attempts.append(run_async(folder.path / f"{name}.yaml", None, *options))
    reports = await asyncio.gather(*attempts)
    done = [report.counts.get("new") == 1 for report in reports]  # else held, or refused
    assert done != [True, True]  # in a tie none writes, and the next run does
    assert folder.there == ("a" if done[0] else "b" if done[1] else None)
    again = await run_async(folder.path / f"{'b' if done[1] else 'a'}.yaml", None, *options)
    assert (again.status, folder.there) == ("completed", "b" if done[1] else "a")


@pytest.mark.parametrize("seed", range(12))
def test_after_any_order_of_runs_a_path_has_its_owners_text(folder: Folder, seed: int) -> None:
    chance = random.Random(seed)
    there: dict[str, str] = {}
    owner: str | None = None
    lost = set[str]()  # those of whose items `--take` took the output
    for _ in range(25):
        name = chance.choice("abc")
        match chance.randrange(8):
            case 0:
                there[name] = chance.choice([*KINDS])
                folder.write(name, there[name])
            case 1:
                (folder.path / f"{name}.yaml").unlink(missing_ok=True)
                there.pop(name, None)
            case 2:
                folder.table.unlink(missing_ok=True)
                owner = None
            case 3 if name in there:
                (new,) = chance.sample([other for other in "abc" if other != name], 1)
                text = KINDS[there[name]].replace("NAME", new)
                (folder.path / f"{name}.yaml").unlink()
                (folder.path / f"{new}.yaml").write_text(text)
                there[new] = there.pop(name)
            case _ if name in there:
                takes = chance.random() < 0.2
                if takes or owner in (None, name) or owner not in there:
                    folder.run(name, takes_over=takes, prune=chance.random() < 0.3)
                    lost = lost - {name} | (
                        {owner} if takes and owner not in (None, name) else set()
                    )
                    owner = name
                else:
                    try:
                        report = folder.run(name, retry_failed=chance.random() < 0.5)
                        refused = errors(report).get("t.txt")
                        assert name in lost if refused is None else f"'{owner}.yaml'" in refused
                    except PipelineError as error:
                        assert f"'{owner}.yaml'" in str(error)
        assert folder.there == owner, (seed, there)
