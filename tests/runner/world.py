"""A pipeline in a folder of its own, run and planned without a model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.request import Pool
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.runner.api import plan, run_async, run_until_end
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.dry_run import forecast
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.progress.events import Observer
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.settings import STATE_FOLDER, Settings
from tests.fakes.pool import FakePool
from tests.waiting import PATIENCE_S

# A plan that a slow machine ends has other numbers
forecast.MAX_WALK_S = PATIENCE_S

SUMMARIES = """\
name: summaries
inputs:
  tone: {type: str, default: plain}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }} ({{ inputs.tone }})"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: digest, uses: chat, with: {prompt: "All: {{ steps.each.results }}"}}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
returns: {report: steps.report.path, counts: steps.each.counts}
"""
ALL = frozenset(("run", "tool", "mcp", "network", "secrets"))
"""What a pipeline can be allowed."""


@dataclass
class World:
    folder: Path
    text: str = SUMMARIES
    beside: Mapping[str, str] = field(default_factory=dict)
    """Other files of the folder."""
    n_documents: int = 0
    pool: FakePool = field(default_factory=FakePool)
    name: str = "pipeline.yaml"

    def __post_init__(self) -> None:
        if not self.file.exists() or self.file.read_text() != self.text:
            self.write(self.name, self.text)
        for name, text in self.beside.items():
            self.write(name, text)
        self.documents(self.n_documents)

    @property
    def file(self) -> Path:
        return self.folder / self.name

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def documents(self, n: int) -> None:
        for number in range(n):
            self.write(f"inbox/{number}.txt", f"Document {number}, about the ferry.")

    def edit(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)
        self.write(self.name, self.text)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        pool: FakePool | None = None,
        observer: Observer | None = None,
        **options: Any,
    ) -> Report:
        self.pool = pool or FakePool()
        return run_until_end(self.file, inputs, *self._arguments(observer, options))

    async def run_async(
        self, *, pool: FakePool, observer: Observer | None = None, **options: Any
    ) -> Report:
        self.pool = pool
        return await run_async(self.file, None, *self._arguments(observer, options))

    def _arguments(
        self, observer: Observer | None, options: dict[str, Any]
    ) -> tuple[RunOptions, RunEnvironment]:
        around = {"pool": self.pool, "observer": observer or Observer()}
        return run_arguments(
            **{"local": True, "settings": settings(self.folder), **options, **around}
        )

    def plan(
        self, inputs: Mapping[str, Any] | None = None, pool: Pool | None = None, **options: Any
    ) -> PlanReport:
        given, pool = RunOptions(**options), pool or FakePool()
        return plan(self.file, inputs, given, pool=pool, settings=settings(self.folder))

    def output(self, name: str) -> str:
        return (self.folder / "out" / name).read_text(encoding="utf-8")

    def ledger(self) -> Ledger:
        """Return the ledger, for reading."""
        return Ledger(self.folder / STATE_FOLDER, is_readonly=True)


class ReviewedWorld(World):
    """A world in which `ann` decides on answers that wait."""

    @contextmanager
    def reviews(self) -> Iterator[LedgerReviews]:
        with Ledger(self.folder / STATE_FOLDER) as ledger:
            yield LedgerReviews(ledger)

    def waiting(self) -> dict[str, Review]:
        """Return the reviews that wait, by their item."""
        with self.reviews() as reviews:
            return {review.key: review for review in reviews.waiting(is_whole=True)}

    def decide(self, key: str, verb: Any, value: Any = None, reason: str = "") -> None:
        with self.reviews() as reviews:
            (review,) = [review for review in reviews.waiting() if review.key == key]
            reviews.decide(review.id, review.question, verb, value, reason=reason, by="ann")

    def decide_all(
        self, verb: Any, value: Callable[[Review], Any] = lambda _: None, reason: str = ""
    ) -> int:
        """Decide on all that waits; return how much that was."""
        with self.reviews() as reviews:
            waiting = reviews.waiting(is_whole=True)
            for review in waiting:
                reviews.decide(
                    review.id, review.question, verb, value(review), reason=reason, by="ann"
                )
        return len(waiting)

    def undo(self, key: str) -> None:
        with self.reviews() as reviews:
            (review,) = [review for review in reviews.decided() if review.key == key]
            reviews.undo(review.id, "ann")


class Notes(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def each_document(steps: str) -> str:
    """Return a pipeline that reads each document of `inbox`; `steps` are its lines behind that."""
    return f"""\
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
{steps}"""


def carried_out(world: World, **wishes: Any) -> Report:
    """Run a world whose pipeline may reach everything."""
    own = replace(settings(world.folder), allow=ALL)
    return run_until_end(
        world.file,
        wishes.pop("inputs", None),
        *run_arguments(**{"local": True, "pool": FakePool(), "settings": own, **wishes}),
    )


def run_arguments(**given: Any) -> tuple[RunOptions, RunEnvironment]:
    """Divide keywords into a run's options and its environment; lists become sets."""
    names = {*RunOptions.__struct_fields__}
    options: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, list | tuple | set) else value
        for name, value in given.items()
        if name in names
    }
    environment = {name: value for name, value in given.items() if name not in names}
    return RunOptions(**options), RunEnvironment(**environment)


def outputs(world: World) -> list[str]:
    return sorted(path.name for path in (world.folder / "out").iterdir())


def settings(folder: Path) -> Settings:
    return Settings(pool=PoolSettings(cache_dir=folder / "cache"), state_dir=folder / "state")


def states(report: Report | PlanReport, step: str = "each") -> dict[str, str]:
    """Return key → state of what is not fresh."""
    return {i.key: i.state for i in report.items if i.step == step and i.state != "fresh"}


def errors(report: Report) -> dict[str, str]:
    """Return key → error of the items that have one."""
    return {item.key: item.error for item in report.items if item.error is not None}


def reasons(report: Report | PlanReport, step: str = "each") -> dict[str, str | None]:
    """Return key → reason of what is not fresh."""
    return {i.key: i.why for i in report.items if i.step == step and i.state != "fresh"}
