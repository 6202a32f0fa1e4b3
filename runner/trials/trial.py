"""Carry out one test: on a stage, over a tape, as often as it says; then look at its claims."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelSpec, Pool
from paddock.pipelines.claims import WITH_MODEL, Expect, Test
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.runner import pools, verbs
from paddock.runner.binding.bound import BoundPlan
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.secrets import Secrets, StandIns, Withheld
from paddock.runner.settings import Settings
from paddock.runner.tools import BoundModels
from paddock.steps.step import StepError

from . import expectations, verdicts
from .cassette import Cassette, CassetteError, read
from .expectations import After
from .outcome import Case, Problem, Source
from .stage import Stage, StageError, everywhere, staged
from .taped import Reseeded, Tape, TapedPool, Unseen, Wording
from .taped_tools import TapedTools

Mode = Literal["auto", "record", "replay"]
MOST_UNSEEN = 3
MOST_TURNS = 6  # that are named
NOT_REACHED = frozenset(("run", "mcp", "network", "secrets"))
"""What needs no consent in a replay, since it does none of it: only Python functions are called."""
_TOLD = (PipelineError, EngineError, LedgerError, StepError, Withheld, pools.Interrupted)
"""What ends a test before its claims can be looked at, in words for its author."""


class Interrupted(Exception):
    """Somebody asked to end in the middle of a test."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One test of one file, and where its cassette is."""

    file: Path
    group: str
    test: Test
    cassette: Path
    paths: frozenset[str] = frozenset()
    """The inputs that name files and folders."""
    text: str | None = None
    """What to run in place of the file's own text."""

    @property
    def shown_cassette(self) -> str:
        """Name the cassette for people."""
        return os.path.relpath(self.cassette)

    def source(self, mode: Mode) -> Source:
        """Tell where replies come from: recorded ones only, or models."""
        if mode != "auto":
            return mode
        return "replay" if self.test.replay is not None else "live"


@dataclass(frozen=True, slots=True)
class How:
    """How tests are carried out."""

    mode: Mode
    settings: Settings
    allow: frozenset[str]
    environ: Mapping[str, str]
    stop: asyncio.Event
    home: Callable[[], Awaitable[Pool]]
    """Gives this machine's pool, opened at its first use."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one turn of a test came to."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    is_error: bool = False


async def carried_out(subject: Subject, how: How) -> Case:
    """Carry out a test, and give how it went.

    Raises:
        Interrupted: `how.stop` was set.
    """
    began = time.monotonic()
    source = subject.source(how.mode)
    try:
        cassette = _cassette(subject, source)
        turns = await _turns(subject, how, source, cassette)
        notes = _tidied(subject, source, cassette, turns)
    except (CassetteError, StageError) as error:
        kind = "cassette" if isinstance(error, CassetteError) else "files"
        turns, notes = [_Turn((Problem(kind, str(error)),), is_error=True)], ()
    case = Case(subject.test.name, subject.group, source=source, notes=notes)
    return replace(_summed(case, subject.test, turns), seconds=time.monotonic() - began)


async def _turns(
    subject: Subject, how: How, source: Source, cassette: Cassette | None
) -> list[_Turn]:
    try:
        return [
            await _turn(subject, how, source, cassette, number)
            for number in range(subject.test.repeat)
        ]
    except Interrupted:
        if source == "record" and cassette is not None and cassette.calls:
            cassette.write(subject.test.name, keeps_stale=True)  # the next one goes on from here
        raise


def _summed(case: Case, test: Test, turns: list[_Turn]) -> Case:
    """Put the turns together; what is wrong in several of them is told once."""
    passed = tuple(not turn.problems for turn in turns)
    found: dict[Problem, list[int]] = {}
    for number, turn in enumerate(turns, 1):
        for problem in dict.fromkeys(turn.problems):
            found.setdefault(problem, []).append(number)
    problems = [
        replace(problem, message=_where(numbers, len(turns)) + problem.message)
        for problem, numbers in found.items()
    ]
    notes = [note for turn in turns for note in turn.notes]
    if len(turns) > 1:
        notes.insert(0, f"{sum(passed)} of {len(turns)} turns passed, {test.pass_rate:.0%} must")
    return replace(
        case,
        problems=tuple(problems),
        is_error=all(turn.is_error for turn in turns),
        turns=passed,
        # What was not recorded is no whim of a model.
        needed=1.0 if any(one.kind == "unseen" for one in problems) else test.pass_rate,
        notes=tuple(dict.fromkeys((*notes, *case.notes))),
    )


def _where(numbers: list[int], n_turns: int) -> str:
    """Say in which turns something was wrong.

    >>> _where([2], 3), _where([1, 3], 3), _where([1, 2, 3], 3), _where([1], 1)
    ('turn 2: ', 'turns 1 and 3: ', 'each turn: ', '')
    """
    if n_turns == 1:
        return ""
    if len(numbers) == n_turns:
        return "each turn: "
    if len(numbers) > MOST_TURNS:
        return f"{len(numbers)} turns: "
    names = [str(number) for number in numbers]
    listed = ", ".join([*names[:-2], " and ".join(names[-2:])])
    return f"turn{'s' if names[1:] else ''} {listed}: "


def _cassette(subject: Subject, source: Source) -> Cassette | None:
    if source == "live":
        return None
    cassette = read(subject.cassette)
    if source == "replay" and not cassette.is_there:
        raise CassetteError(
            f"nothing is recorded for this test: there is no {subject.shown_cassette}. "
            f"Record it with `paddock test {subject.file} --record`."
        )
    return cassette


def _tidied(
    subject: Subject, source: Source, cassette: Cassette | None, turns: Iterable[_Turn]
) -> tuple[str, ...]:
    """Write the cassette where one is recorded; tell what of it is stale."""
    if cassette is None:
        return ()
    stale = len(cassette.unused)
    if source == "record":
        if any(turn.is_error for turn in turns):
            return ("nothing was recorded, since the test could not be carried out",)
        if not cassette.write(subject.test.name):
            return ()
        dropped = f", {_replies(stale)} dropped" if stale else ""
        return (f"recorded {subject.shown_cassette}{dropped}",)
    if stale and not any(turn.problems for turn in turns):
        was = "was" if stale == 1 else "were"
        return (
            f"{_replies(stale)} in {subject.shown_cassette} {was} not asked for; "
            f"`--record` drops what is stale",
        )
    return ()


def _replies(n: int) -> str:
    return f"{n:,} recorded repl{'y' if n == 1 else 'ies'}"


async def _turn(
    subject: Subject, how: How, source: Source, cassette: Cassette | None, number: int
) -> _Turn:
    test = subject.test
    copied = staged(subject.file, wanted=test.files, without=[subject.cassette.parent])
    stage = await asyncio.to_thread(copied.__enter__)
    try:
        return await _on_stage(subject, how, source, cassette, number, stage)
    except _TOLD as error:
        if how.stop.is_set():
            raise Interrupted from error
        return _Turn((Problem("run", stage.for_person(str(error))),), is_error=True)
    finally:
        await asyncio.to_thread(copied.__exit__, None, None, None)


async def _on_stage(
    subject: Subject,
    how: How,
    source: Source,
    cassette: Cassette | None,
    number: int,
    stage: Stage,
) -> _Turn:
    inputs = inputs_of(subject, stage)
    settings = replace(how.settings, ledger_url="")
    is_replay = source == "replay"
    environ = StandIns() if is_replay else how.environ
    allow = how.allow | NOT_REACHED if is_replay else how.allow
    _, bound, secrets = verbs.prepare(stage.file, inputs, settings, subject.text, allow, environ)
    tape = None
    if cassette is not None:
        wording = Wording(stage, secrets.redact)
        tape = Tape(cassette, wording, is_replay, subject.shown_cassette, test=subject.test.name)
    with secrets.guarded():
        async with _pool(subject, how, source, tape, bound, secrets, number) as pool:
            report = await verbs.run_async(
                stage.file,
                inputs,
                local=True,
                settings=settings,
                pool=pool,
                stop=how.stop,
                allow=allow,
                text=subject.text,
                notify=False,
                environ=environ,
                tape=None if tape is None else TapedTools(tape, number),
                keeps_turn=False,
            )
            if how.stop.is_set() or report.status == "interrupted":
                raise Interrupted
            if tape is not None and tape.unseen:
                return _Turn(_unseen(tape.unseen))
            after = After(stage, report, bound.inputs)
            problems = [problem async for problem in _problems(subject, after, pool, bound)]
            if tape is not None and tape.unseen:  # a judge's prompt, say
                problems += _unseen(tape.unseen)
    if how.stop.is_set():
        raise Interrupted
    found = everywhere([[p.kind, p.message, p.detail] for p in problems], secrets.redact)
    return _Turn(tuple(Problem(*one) for one in found))


async def _problems(
    subject: Subject, after: After, pool: Pool, bound: BoundPlan
) -> AsyncIterator[Problem]:
    claims = subject.test.expect
    for one in expectations.of_run(claims, after):
        yield one
    models = BoundModels(bound.models, bound.defaults, None)
    for claim in claims:
        if claim.claim in WITH_MODEL:
            problem = await verdicts.problem_of(claim, after, pool, models)
        else:
            problem = await asyncio.to_thread(expectations.problem_of, claim, after)
        if problem is not None:
            yield problem


@asynccontextmanager
async def _pool(
    subject: Subject,
    how: How,
    source: Source,
    tape: Tape | None,
    bound: BoundPlan,
    secrets: Secrets,
    number: int,
) -> AsyncIterator[Pool]:
    """Give the pool of one turn: the tape alone, the tape before the real one, or the real one."""
    if source == "replay" and tape is not None:
        yield Reseeded(TapedPool(tape, None), number)
        return
    home = await how.home()
    opened = pools.opened_pool(
        bound,
        how.settings,
        home=home,
        secrets=secrets,
        stop=how.stop,
        besides=_judges(subject.test.expect, bound),
    )
    async with opened as (_, real):
        yield Reseeded(real if tape is None else TapedPool(tape, real), number)


def _judges(claims: Iterable[Expect], bound: BoundPlan) -> list[ModelSpec]:
    """Return the models that claims ask: those that they name, else the defaults of their roles."""
    models = BoundModels(bound.models, bound.defaults, None)
    return [
        models.resolve(claim.model, "embed" if claim.claim == "similar" else "chat")
        for claim in claims
        if claim.claim in WITH_MODEL
    ]


def inputs_of(subject: Subject, stage: Stage) -> dict[str, Any]:
    """Give a test's inputs; paths absolutely, relative ones as the pipeline's own are.

    Raises:
        StageError: one leads outside of the test's folders.
    """
    try:
        inputs = Value.of(subject.test.inputs).render({"tmp": str(stage.tmp)})
    except ExpressionError as error:
        raise StageError(f"`inputs`: {error.message}. {error.remedy}".strip()) from error
    for name in subject.paths.intersection(inputs):
        if not isinstance(inputs[name], str):
            continue  # refused with the pipeline's other inputs
        try:
            path = (stage.folder / inputs[name]).resolve()
        except (OSError, RuntimeError, ValueError):
            raise StageError(f"input '{name}' cannot be used as a path. Name another.") from None
        if not any(path.is_relative_to(root) for root in (stage.folder, stage.tmp)):
            raise StageError(
                f"input '{name}' leads outside of the pipeline's folder. A test runs on a copy "
                f"of it: put what it needs there."
            )
        inputs[name] = str(path)
    return dict(inputs)


def _unseen(unseen: list[Unseen]) -> tuple[Problem, ...]:
    """Tell what was not recorded; calls that differ in the same way together."""
    shown = dict.fromkeys((one.kind, one.difference) for one in unseen[:MOST_UNSEEN])
    problems = [
        Problem("unseen", _NOT_RECORDED.get(kind, "this call of a tool was not recorded."), detail)
        for kind, detail in shown
    ]
    left = len(unseen) - len(problems)
    if left:
        more = "1 more call was" if left == 1 else f"{left:,} more calls were"
        problems.append(Problem("unseen", f"{more} not recorded."))
    remedy = "If the change is meant, record the test again with `--record`."
    last = replace(problems[-1], message=f"{problems[-1].message} {remedy}")
    return (*problems[:-1], last)


_NOT_RECORDED = {
    "chat": "this prompt was not recorded.",
    "embed": "these texts were not recorded.",
}
