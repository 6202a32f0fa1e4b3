"""Run one test in a sandbox, with or without a cassette, as often as it says; check its claims."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from wcmatch import glob

from paddock.engine.errors import EngineError
from paddock.engine.request import Pool
from paddock.engine.system import files
from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import counted, map_texts
from paddock.pipelines.errors import PipelineError, text_without_places
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.pipeline_tests import EXPECTATIONS_WITH_MODEL, TestKeys
from paddock.runner import api
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.config.pipeline_secrets import PlaceholderSecrets, RedactedError, Secrets
from paddock.runner.core.calls import model_pools
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.core.step_tools import BoundModels
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.prefect.run_tracking import run_prepared
from paddock.runner.settings import Settings
from paddock.steps.base import StepError

from . import expectations
from .case_results import CaseProblem, CaseResult, ReplySource
from .cassette import Cassette, CassetteError, read_cassette
from .cassette_differences import changed_answers
from .data_sets import DataRow, share_text
from .expectations import FinishedRun
from .replay import CassettePool, CassetteSession, CassetteTape, ReseededPool, UnrecordedCall
from .sandbox_copy import SandboxCopy, SandboxError, sandbox_copy

ReplayMode = Literal["auto", "record", "replay"]
MAX_SHOWN_UNRECORDED = 3
MAX_NAMED_REPETITIONS = 6
MAX_ALIKE = 3
"""Problems of a claim that are shown with their details."""
UNUSED_IN_REPLAY = frozenset(("run", "mcp", "network", "secrets"))
"""Permissions that a replay does not need: of tools, it calls Python functions only."""
_REPORTED_ERRORS = (
    PipelineError,
    EngineError,
    LedgerError,
    StepError,
    RedactedError,
    model_pools.LookupInterrupted,
)
"""Errors that end a test before its claims are checked; their text is for its author."""


class CaseInterrupted(Exception):
    """A stop was requested during a test."""


class CaseSpec(Struct, frozen=True):
    file: Path
    group: str
    test: TestKeys
    cassette: Path
    paths: frozenset[str] = frozenset()
    """Names of inputs that are files or folders."""
    text: str | None = None
    """Text to run instead of the file's own."""
    is_variant: bool = False
    """Whether values of the file are replaced, as options of the command say."""
    rows: tuple[DataRow, ...] = ()
    """Of a data set: it runs once for each."""
    n_left_out: int = 0
    """Rows that are not in the sample."""
    has_first_rows: bool = False
    """Whether the sample is the first rows, which say nothing of the others."""

    @property
    def shown_cassette(self) -> str:
        return os.path.relpath(self.cassette)

    def source(self, mode: ReplayMode) -> ReplySource:
        if mode != "auto":
            return mode
        return "replay" if self.test.replay is not None else "live"


class CaseOptions(Struct, frozen=True):
    mode: ReplayMode
    settings: Settings
    allow: frozenset[str]
    environ: Mapping[str, str]
    stop: asyncio.Event
    default_pool: Callable[[], Awaitable[Pool]]
    """Returns this machine's pool, opened at its first use."""


class _Repetition(Struct, frozen=True):
    problems: tuple[CaseProblem, ...]
    notes: tuple[str, ...] = ()
    is_error: bool = False
    row: DataRow | None = None
    """Of a data set."""
    seconds: float = 0.0


async def run_case(spec: CaseSpec, options: CaseOptions) -> CaseResult:
    """Run a test and return its result.

    Raises:
        CaseInterrupted: `options.stop` was set.
    """
    began = time.monotonic()
    test, source = spec.test, spec.source(options.mode)
    notes: list[str] = []
    changed: tuple[str, ...] = ()
    try:
        cassette = _open_cassette(spec, source)
        turns = await _CaseRun(spec, options, source, cassette).repetitions()
        notes += _save_cassette(spec, source, cassette, turns)
        if source == "record" and cassette is not None:
            changed = tuple(changed_answers(cassette))
    except (CassetteError, SandboxError) as error:
        kind = "cassette" if isinstance(error, CassetteError) else "files"
        turns = [_Repetition((CaseProblem(kind, str(error)),), is_error=True)]
    if spec.n_left_out:
        notes.insert(0, f"{counted(spec.n_left_out, 'row')} of its data set left out by the sample")
    notes = [*chain.from_iterable(turn.notes for turn in turns), *notes]
    problems = _merged_problems(turns)
    rows = tuple(turn.row.name for turn in turns if turn.row)
    needed = test.pass_ if rows else test.pass_rate
    passed = tuple(not turn.problems for turn in turns)
    is_random = not (spec.has_first_rows and spec.n_left_out)
    bounds = share_interval(sum(passed) / len(turns), len(turns)) if rows and is_random else None
    if rows:
        notes.insert(0, share_text(sum(passed), len(turns), needed, bounds))
    elif len(turns) > 1:
        words = f"{sum(passed)} of {len(turns)} turns passed, {needed:.0%} must pass"
        notes.insert(0, words)
    return CaseResult(
        test.name,
        spec.group,
        time.monotonic() - began,
        problems,
        is_error=all(turn.is_error for turn in turns),
        notes=tuple(dict.fromkeys(notes)),
        changed_answers=changed,
        source=source,
        turns=passed,
        # An unrecorded call is not a model's randomness: every repetition must pass.
        needed=1.0 if any(problem.kind == "unseen" for problem in problems) else needed,
        rows=rows,
        of_rows=tuple(
            CaseResult(
                turn.row.key,
                f"{spec.group}.{test.name}",
                turn.seconds,
                turn.problems,
                turn.is_error,
                notes=(turn.row.text, *turn.notes),
            )
            for turn in turns
            if turn.row
        ),
        bounds=bounds,
    )


def _merged_problems(turns: Sequence[_Repetition]) -> tuple[CaseProblem, ...]:
    """Return each problem once, with the numbers of the repetitions that have it.

    Of problems that differ in their details only, the first few have them.
    """
    numbers: dict[CaseProblem, list[int]] = {}
    n_alike: Counter[CaseProblem] = Counter()
    for number, turn in enumerate(turns, 1):
        for problem in dict.fromkeys(turn.problems):
            short = replace(problem, detail="")
            n_alike[short] += problem not in numbers
            shown = problem if n_alike[short] <= MAX_ALIKE or problem in numbers else short
            numbers.setdefault(shown, []).append(number)
    return tuple(
        replace(problem, message=_turns_text(own, turns) + problem.message)
        for problem, own in numbers.items()
    )


def _turns_text(numbers: list[int], turns: Sequence[_Repetition]) -> str:
    """Return the prefix that names the repetitions, or the rows, with a problem.

    >>> three = [_Repetition(())] * 3
    >>> _turns_text([2], three), _turns_text([1, 3], three), _turns_text([1, 2, 3], three)
    ('turn 2: ', 'turns 1 and 3: ', 'each turn: ')
    >>> row = DataRow(2, {"text": "the tram"}, "the tram")
    >>> _turns_text([1], [_Repetition((), row=row)])
    "row 2 ('the tram'): "
    """
    what = "row" if turns[0].row else "turn"
    if len(turns) == 1 and what == "turn":
        return ""
    if len(numbers) == len(turns) > 1:
        return f"each {what}: "
    if len(numbers) > MAX_NAMED_REPETITIONS:
        return f"{len(numbers)} {what}s: "
    names = [
        str(number) if row is None else f"{row.number} ('{row.first_value}')"
        for number in numbers
        for row in (turns[number - 1].row,)
    ]
    listed = ", ".join([*names[:-2], " and ".join(names[-2:])])
    return f"{what}{'s' if names[1:] else ''} {listed}: "


def _open_cassette(spec: CaseSpec, source: ReplySource) -> Cassette | None:
    if source == "live":
        return None
    cassette = read_cassette(spec.cassette)
    if source == "replay" and not cassette.is_there:
        command = f"`paddock test {shlex.quote(str(spec.file))} --record`"
        if spec.is_variant:
            command = "the same command and `--record`"
        raise CassetteError(
            f"this test has no recorded replies: there is no {spec.shown_cassette}. "
            f"Record it with {command}."
        )
    return cassette


def _save_cassette(
    spec: CaseSpec, source: ReplySource, cassette: Cassette | None, turns: Iterable[_Repetition]
) -> tuple[str, ...]:
    """Write the cassette when recording; return notes, for example about stale replies."""
    if cassette is None:
        return ()
    is_part = bool(spec.n_left_out)  # replies that others of its rows need are no stale ones
    stale = 0 if is_part else len(cassette.unused)
    if source == "record":
        if any(turn.is_error for turn in turns):
            return ("nothing was recorded, because the test could not run",)
        if not cassette.write(spec.test.name, keeps_stale=is_part):
            return ()
        dropped = f", {_replies_text(stale)} removed" if stale else ""
        return (f"recorded {spec.shown_cassette}{dropped}",)
    if stale and not any(turn.problems for turn in turns):
        was = "was" if stale == 1 else "were"
        return (
            f"{_replies_text(stale)} in {spec.shown_cassette} {was} not used; "
            f"`--record` removes stale ones",
        )
    return ()


def _replies_text(n: int) -> str:
    return counted(n, "recorded reply", "recorded replies")


class _CaseRun(Struct, frozen=True):
    """One test that is run; `cassette` is None where nothing is recorded or replayed."""

    spec: CaseSpec
    options: CaseOptions
    source: ReplySource
    cassette: Cassette | None

    async def repetitions(self) -> list[_Repetition]:
        test = self.spec.test
        try:
            if rows := self.spec.rows:
                return [await self._repetition(0, row) for row in rows]
            return [await self._repetition(number) for number in range(test.repeat)]
        except CaseInterrupted:
            if self.source == "record" and self.cassette is not None and self.cassette.calls:
                # The next recording continues from here.
                self.cassette.write(test.name, keeps_stale=True)
            raise

    async def _repetition(self, number: int, row: DataRow | None = None) -> _Repetition:
        began = time.monotonic()
        async with self._sandbox(row) as stage:
            try:
                problems = await self._problems(stage, number, row)
                turn = _Repetition(tuple(problems))
            except _REPORTED_ERRORS as error:
                if self.options.stop.is_set():
                    raise CaseInterrupted from error
                message = None if self.spec.text is None else text_without_places(error)
                words = f"{self.spec.file.name}: {message}" if message else str(error)
                problem = CaseProblem("run", stage.for_person(words))
                turn = _Repetition((problem,), is_error=True)
        return replace(turn, row=row, seconds=time.monotonic() - began)

    @asynccontextmanager
    async def _sandbox(self, row: DataRow | None) -> AsyncIterator[SandboxCopy]:
        """Yield a copy of the pipeline's folder, which is made and removed in a thread.

        Raises:
            SandboxError: it cannot be made.
        """
        patterns = self.spec.test.files
        if row is not None:
            escape = partial(glob.escape, unix=True)
            names = {name: map_texts(value, escape) for name, value in row.values.items()}
            try:
                patterns = Value.of(list(patterns)).render({"case": names})
            except ExpressionError as error:
                raise SandboxError(f"`files`: {error.message}. {error.remedy}".strip()) from error
        without = [self.spec.cassette.parent]
        copied = sandbox_copy(self.spec.file, patterns=patterns, without=without)
        stage = await asyncio.to_thread(copied.__enter__)
        try:
            yield stage
        finally:
            await asyncio.to_thread(copied.__exit__, None, None, None)

    async def _problems(
        self, stage: SandboxCopy, number: int, row: DataRow | None
    ) -> Sequence[CaseProblem]:
        """Run the pipeline, and return the claims that do not hold, or the unrecorded calls.

        Raises:
            CaseInterrupted: a stop was requested.
        """
        spec, how = self.spec, self.options
        is_replay = self.source == "replay"  # it needs no secrets and permissions
        options = RunOptions(
            local=True,
            allow=how.allow | UNUSED_IN_REPLAY if is_replay else how.allow,
            text=spec.text,
            notify=False,
            review=spec.test.review,
        )
        environment = RunEnvironment(
            settings=replace(how.settings, ledger_url=""),
            stop=how.stop,
            environ=PlaceholderSecrets() if is_replay else how.environ,
            has_group_turn=False,
            is_acting=False,
        )
        prepared = api.prepare(stage.file, case_inputs(spec, stage, row), options, environment)
        bound, secrets = prepared.bound, prepared.secrets
        session = tape = None
        if self.cassette is not None:
            session = CassetteSession(
                self.cassette, stage, secrets.redact, is_replay, spec.shown_cassette,
                test=spec.test.name,
            )  # fmt: skip
            tape = CassetteTape(session, number)
        with secrets.guarded():
            async with self._open_pool(session, bound, secrets, number) as pool:
                environment = replace(environment, pool=pool, tape=tape)
                api.refuse_unready(prepared, options, environment)
                report = await run_prepared(prepared, options, environment)
                if how.stop.is_set() or report.status == "interrupted":
                    raise CaseInterrupted
                if session is not None and session.unseen:
                    return _unrecorded_problems(session.unseen)
                values = None if row is None else row.values
                run = FinishedRun(stage, report, bound.inputs, values)
                models = BoundModels(bound.models, bound.defaults, None)
                problems = await expectations.claim_problems(spec.test.expect, run, pool, models)
                if session is not None and session.unseen:  # a judge's prompt, say
                    problems += _unrecorded_problems(session.unseen)
        if how.stop.is_set():
            raise CaseInterrupted
        texts = map_texts([[p.kind, p.message, p.detail] for p in problems], secrets.redact)
        return [CaseProblem(*redacted) for redacted in texts]

    @asynccontextmanager
    async def _open_pool(
        self, session: CassetteSession | None, bound: BoundPlan, secrets: Secrets, number: int
    ) -> AsyncIterator[Pool]:
        """Yield the pool of one repetition: the cassette, the same over the real pool, or that."""
        if self.source == "replay" and session is not None:
            yield ReseededPool(CassettePool(session, None), number)
            return
        models = BoundModels(bound.models, bound.defaults, None)
        judges = [
            models.resolve(claim.model, "embed" if claim.claim == "similar" else "chat")
            for claim in self.spec.test.expect
            if claim.claim in EXPECTATIONS_WITH_MODEL
        ]
        default = await self.options.default_pool()
        options = model_pools.PoolOptions(
            default=default, secrets=secrets, stop=self.options.stop, besides=judges
        )
        async with model_pools.open_pools(bound, self.options.settings, options) as (_, real):
            yield ReseededPool(real if session is None else CassettePool(session, real), number)


def case_inputs(spec: CaseSpec, stage: SandboxCopy, row: DataRow | None) -> dict[str, Any]:
    """Return a test's inputs with absolute paths, resolved in the sandbox.

    Raises:
        SandboxError: a path leads outside of the test's folders.
    """
    try:
        scope = {"tmp": str(stage.tmp), **({"case": row.values} if row is not None else {})}
        inputs = Value.of(spec.test.inputs).render(scope)
    except ExpressionError as error:
        raise SandboxError(f"`inputs`: {error.message}. {error.remedy}".strip()) from error
    for name in spec.paths.intersection(inputs):
        if not isinstance(inputs[name], str):
            continue  # reported with the pipeline's other inputs
        path = files.resolved(stage.folder / inputs[name])
        if path is None:
            raise SandboxError(f"input '{name}' cannot be used as a path.")
        if not any(path.is_relative_to(root) for root in (stage.folder, stage.tmp)):
            raise SandboxError(
                f"input '{name}' leads outside of the pipeline's folder. A test runs on a copy "
                f"of that folder: put its files there."
            )
        inputs[name] = str(path)
    return dict(inputs)


def _unrecorded_problems(unseen: list[UnrecordedCall]) -> tuple[CaseProblem, ...]:
    shown = dict.fromkeys((call.kind, call.difference) for call in unseen[:MAX_SHOWN_UNRECORDED])
    problems = [
        CaseProblem(
            "unseen", _NOT_RECORDED.get(kind, "this call of a tool was not recorded."), detail
        )
        for kind, detail in shown
    ]
    left = len(unseen) - len(problems)
    if left:
        rest = "1 more call was" if left == 1 else f"{left:,} more calls were"
        problems.append(CaseProblem("unseen", f"{rest} not recorded."))
    remedy = "If the change is meant, record the test again with `--record`."
    last = replace(problems[-1], message=f"{problems[-1].message} {remedy}")
    return (*problems[:-1], last)


_NOT_RECORDED = {"chat": "this prompt was not recorded.", "embed": "these texts were not recorded."}
