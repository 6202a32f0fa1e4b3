"""An effect that a package brings: one class and its entry point, which the runner never names.

It is a page of a wiki; the wiki is a folder outside of the pipeline's.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.steps import effects, plugins, registry
from tests.runner.world import World

WIKI = '''
    import hashlib
    from pathlib import Path
    from typing import Annotated

    from paddock.steps.base import Output, Params, Step, StepError
    from paddock.steps.effects import OutputEffect, put_output
    from paddock.steps.facts import Facts

    WIKI = Path({wiki!r})

    class WikiPage(OutputEffect):
        """The page that it makes."""

        name = "wiki"

        @classmethod
        def holds(cls, place):
            if (WIKI / "away").exists():
                raise StepError("the wiki is away.", kind="io")
            page = WIKI / place
            return hashlib.sha256(page.read_bytes()).hexdigest() if page.exists() else None

        @classmethod
        def apply(cls, place, content):
            with (WIKI / "log").open("a") as log:
                log.write(f"put {{place}}\\n")
            (WIKI / place).write_bytes(content)

        @classmethod
        def undo(cls, place):
            if (WIKI / "locked").exists():
                raise StepError("the page is locked.")
            (WIKI / place).unlink(missing_ok=True)

    class PublishParams(Params):
        page: Annotated[str, WikiPage]
        text: str

    class PublishOutput(Output):
        changed: bool

    class Publish(Step[PublishParams, PublishOutput]):
        """A page of the wiki."""

        params, output = PublishParams, PublishOutput
        facts = Facts(is_repeatable=True)

        async def run(self, params, tools):
            changed = await put_output(WikiPage, params.page, params.text.encode(), tools)
            return PublishOutput(changed=changed)
'''
PUBLISH = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: made, uses: publish, with: {page: "{{ doc.stem }}", text: "{{ steps.text.text }}"}}
    returns: {changed: steps.made.changed}
"""


@pytest.fixture
def wiki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a wiki, for which a package is installed."""
    package, pages = tmp_path / "site", tmp_path / "wiki"
    info = package / "acme_wiki-1.0.dist-info"
    info.mkdir(parents=True)
    pages.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-wiki\nVersion: 1.0\n")
    entries = "[paddock.steps]\npublish = acme_wiki:Publish\n"
    (info / "entry_points.txt").write_text(
        f"{entries}[paddock.effects]\nwiki = acme_wiki:WikiPage\n"
    )
    (package / "acme_wiki.py").write_text(textwrap.dedent(WIKI.format(wiki=str(pages))))
    monkeypatch.syspath_prepend(str(package))
    _forget_packages()
    yield pages
    sys.modules.pop("acme_wiki", None)
    monkeypatch.undo()
    _forget_packages()


def _forget_packages() -> None:
    for known in (
        plugins.plugins, registry._effective_points, registry.facts_of, effects._effect_named
    ):  # fmt: skip
        known.cache_clear()


def pages(wiki: Path) -> dict[str, str]:
    own = ("log", "away", "locked")
    return {page.name: page.read_text() for page in sorted(wiki.iterdir()) if page.name not in own}


def states_of(report: Report | PlanReport) -> list[str]:
    return [item.state for item in report.items]


def put(wiki: Path) -> list[str]:
    """Return the pages that were put since this was last asked."""
    log = wiki / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(line.removeprefix("put ") for line in lines)


def world_of(tmp_path: Path) -> World:
    return World(tmp_path / "here", PUBLISH, n_documents=2)


def test_it_is_applied_once_and_verified_like_a_file(tmp_path: Path, wiki: Path) -> None:
    world = world_of(tmp_path)
    assert states_of(world.run()) == ["new", "new"]
    assert pages(wiki) == {str(n): f"Document {n}, about the ferry." for n in range(2)}
    assert put(wiki) == ["0", "1"]
    assert states_of(world.plan()) == ["fresh", "fresh"]
    world.run()
    assert put(wiki) == []
    (wiki / "0").unlink()
    assert [item.key for item in world.plan().items if item.state == "stale"] == ["0.txt"]
    world.run()
    assert put(wiki) == ["0"]


def test_what_a_person_changed_is_kept_unless_a_run_takes_it(tmp_path: Path, wiki: Path) -> None:
    world = world_of(tmp_path)
    world.run()
    put(wiki)
    (wiki / "1").write_text("by hand")
    assert [item.key for item in world.plan().items if item.state == "held"] == ["1.txt"]
    world.write("inbox/1.txt", "another text")
    world.run()
    assert (put(wiki), pages(wiki)["1"]) == ([], "by hand")
    world.run(takes_over=True)
    assert (put(wiki), pages(wiki)["1"]) == (["1"], "another text")


def test_pruning_removes_what_nothing_makes_any_more_but_no_edit(
    tmp_path: Path, wiki: Path
) -> None:
    world = world_of(tmp_path)
    world.run()
    (wiki / "1").write_text("by hand")
    for n in range(2):
        (world.folder / f"inbox/{n}.txt").unlink()
    world.documents(0)
    world.write("inbox/9.txt", "a new one")
    planned = world.plan(prune=True, is_confirmed=True)
    assert [*planned.removed] == ["/wiki:/0"]
    assert [*pages(wiki)] == ["0", "1"], "a plan removes nothing"
    world.run(prune=True, is_confirmed=True)
    assert pages(wiki) == {"1": "by hand", "9": "a new one"}


def test_pages_of_another_name_are_outdated_and_pruned(tmp_path: Path, wiki: Path) -> None:
    world = world_of(tmp_path)
    world.run()
    world.edit('page: "{{ doc.stem }}"', 'page: "doc-{{ doc.stem }}"')
    assert {*world.plan().outdated} == set()
    report = world.run()
    assert {*report.outdated} == {"/wiki:/0", "/wiki:/1"}
    world.run(prune=True)
    assert [*pages(wiki)] == ["doc-0", "doc-1"]


def test_two_items_that_would_make_the_same_page_wait(tmp_path: Path, wiki: Path) -> None:
    world = world_of(tmp_path)
    world.edit('page: "{{ doc.stem }}"', "page: all")
    assert states_of(world.plan()) == ["blocked", "blocked"]
    assert states_of(world.run()) == ["blocked", "blocked"]
    assert pages(wiki) == {}


def test_a_page_belongs_to_the_item_that_made_it_until_that_is_gone(
    tmp_path: Path, wiki: Path
) -> None:
    world = world_of(tmp_path)
    world.run()
    put(wiki)
    world.write("inbox/later/0.txt", "of another document")
    (blocked,) = [item for item in world.plan().items if item.state == "blocked"]
    assert blocked.key == "later/0.txt"
    assert "'/wiki:/0' is an output of item '0.txt'" in str(blocked.reasons[0])
    world.run()
    assert put(wiki) == []
    (world.folder / "inbox/0.txt").unlink()
    world.run()
    assert (put(wiki), pages(wiki)["0"]) == (["0"], "of another document")


def test_a_wiki_that_is_away_makes_nothing_stale_and_loses_nothing(
    tmp_path: Path, wiki: Path
) -> None:
    world = world_of(tmp_path)
    world.run()
    put(wiki)
    (wiki / "away").touch()
    assert states_of(world.plan()) == ["fresh", "fresh"]
    (wiki / "away").unlink()
    (wiki / "locked").touch()
    (world.folder / "inbox/0.txt").unlink()
    report = world.run(prune=True, is_confirmed=True)
    assert "'/wiki:/0' cannot be removed (the page is locked.)" in json.dumps(report.notes)
    (wiki / "locked").unlink()
    world.run(prune=True, is_confirmed=True)
    assert [*pages(wiki)] == ["1"], "the next run tries again"
