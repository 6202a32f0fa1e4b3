"""Decisions of people as test cases: a document, its recorded replies, and the decided value.

Each case runs the pipeline on one document, in a sandbox. Replies come from the ledger; in place of
the reviewed answer the model "says" the decided value. So a replay tests all that is behind the
model, and recording the case again tests whether the model has become right. No model is asked
here: a case whose prompts the ledger does not know is left out, with a sentence.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from wcmatch import glob

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    ForwardingPool,
    ModelSpec,
    Pool,
    Reply,
    Stream,
)
from paddock.engine.system.files import sha256_of, write_output
from paddock.engine.system.light_dataclasses import dataclass, replace
from paddock.engine.system.text import counted, listed, map_texts
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.pipeline_tests import TestKeys
from paddock.pipelines.prompt_file import escape_template
from paddock.pipelines.yaml_source import parse_yaml, to_yaml
from paddock.runner.core.calls.call_cache import LedgerPool
from paddock.runner.core.calls.call_rows import cached_reply, cached_vectors
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_records import read_lineage, read_source
from paddock.runner.core.run_stats import RunStats
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.events import Observer

from .case_runner import CaseInterrupted, CaseOptions, CaseSpec, run_case
from .cassette import cassette_file_names
from .expectations import FinishedRun
from .junit_and_markdown import CaseResult
from .replay import whole_answer
from .sandbox_copy import recorded_outputs
from .suite_runner import CASSETTE_FOLDER, SuiteOptions, open_cases, pipeline_suite

MAX_DEPTH = 24
"""Of what a run returns, where the decided value is looked for."""
MAX_CLAIMED_CHARS = 2_000
"""Of a text that a claim looks for in a file."""


class CaseLeftOut(Exception):
    """A decision that makes no test; one sentence."""


class UnknownReply(EngineError):
    """The ledger has no reply to a request."""


@dataclass(frozen=True, slots=True)
class ExportedCases:
    """What an export made."""

    made: tuple[str, ...]
    """Names of the new tests."""
    n_known: int
    """Decisions whose test was there before."""
    left_out: tuple[str, ...]
    """A sentence for each decision without a test."""


def export_cases(
    file: Path, ledger: Ledger, reviews: Sequence[Review], options: SuiteOptions
) -> ExportedCases:
    """Add a test to a pipeline's file for each decided answer, with a cassette; return what became.

    Raises:
        PipelineError: the file has faults.
        CaseLeftOut: its `tests` cannot be added to.
        KeyboardInterrupt: Ctrl-C; nothing was added.
    """
    suite = pipeline_suite(file)
    known = {subject.test.name for subject in suite.subjects}
    by_name = {
        case_name(review): review for review in reviews if review.state in ("accepted", "edited")
    }
    new = {name: review for name, review in by_name.items() if name not in known}
    names = cassette_file_names(suite.stem, [*known, *new])
    paths = {path for subject in suite.subjects for path in subject.paths}
    text = file.read_bytes().decode("utf-8")
    with_tests(text, [{"name": "may tests be added?"}], file.name)
    exporter = _Exporter(file, suite.name, ledger, names, paths)
    try:
        made, left_out = asyncio.run(exporter.cases(new, options)) if new else ([], [])
    except CaseInterrupted:
        raise KeyboardInterrupt from None
    if made:
        cases = [
            {name: value for name, value in case.items() if value not in ({}, [], None)}
            for case in made
        ]
        write_output(file, with_tests(text, cases, file.name))
    return ExportedCases(
        tuple(case["name"] for case in made), len(by_name) - len(new), tuple(left_out)
    )


def case_name(review: Review) -> str:
    """Return the name of a review's test, which its id makes unique."""
    return f"review {review.id}: {review.item}, step {review.step}"


@dataclass(frozen=True)
class _Exporter:
    """Makes the cases of one pipeline."""

    file: Path
    group: str
    ledger: Ledger
    cassettes: Mapping[str, str]
    path_inputs: set[str]

    async def cases(
        self, new: Mapping[str, Review], options: SuiteOptions
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the cases as they are written, and sentences on what makes none."""
        made: list[dict[str, Any]] = []
        left_out: list[str] = []
        async with open_cases(self.file, options) as how:
            for name, review in new.items():
                options.on_begin(name)
                try:
                    made.append(await self._case(name, review, how))
                except CaseLeftOut as error:
                    left_out.append(f"{review.item}: {error}")
        return made, left_out

    async def _case(self, name: str, review: Review, how: CaseOptions) -> dict[str, Any]:
        """Record and replay the case of a review."""
        document = review.subject.document
        if not document:
            raise CaseLeftOut("its item is not a document, so a test cannot run on it alone")
        path = self.file.absolute().parent / document
        if PurePosixPath(document).is_absolute() or not path.is_file():
            raise CaseLeftOut("its document is no longer in the pipeline's folder")
        if sha256_of(path) != review.subject.document_sha256:
            raise CaseLeftOut("its document has changed since the decision")
        case: dict[str, Any] = {
            "name": name,
            "inputs": self._inputs(review),
            "files": ["**/*", *_without_others(self._documents(review), document)],
            "replay": CASSETTE_FOLDER,
            "review": "accept",
            "expect": [],
        }
        found: list[list[dict[str, Any]]] = []
        recording = replace(
            how,
            mode="record",
            around=lambda pool: DecidedAnswers(pool, self.ledger, review),
            on_finished=lambda after: found.append(claims_for(review.value, after)),
        )
        cassette = self.file.parent / CASSETTE_FOLDER / self.cassettes[name]
        try:
            self._require(await run_case(self._spec(case, cassette), recording))
            case["expect"] = _required_claims(found[-1])
            self._require(await run_case(self._spec(case, cassette), replace(how, mode="replay")))
        except BaseException:
            with suppress(OSError):
                cassette.unlink(missing_ok=True)
            raise
        return case

    def _spec(self, case: Mapping[str, Any], cassette: Path) -> CaseSpec:
        test = TestKeys.model_validate(case)
        return CaseSpec(self.file, self.group, test, cassette, frozenset(self.path_inputs))

    def _require(self, result: CaseResult) -> None:
        if not result.passed:
            first = result.problems[0]
            raise CaseLeftOut(f"{first.message} {first.detail}".strip().split("\n")[0])

    def _inputs(self, review: Review) -> dict[str, Any]:
        row = RunStore(self.ledger).run(review.run)
        given = json.loads(row.given) if row is not None and row.given else {}
        if given.get("hidden"):
            names = listed([f"'{name}'" for name in given["hidden"]])
            raise CaseLeftOut(f"its run had secret inputs ({names}), which are not recorded")
        base = self.file.absolute().parent.resolve()
        inputs = map_texts(given.get("inputs", {}), escape_template)
        for name in self.path_inputs & inputs.keys():
            path = (base / str(inputs[name])).resolve()
            if not path.is_relative_to(base):
                raise CaseLeftOut(f"input '{name}' of its run leads outside of the folder")
            inputs[name] = path.relative_to(base).as_posix()
        return dict(inputs)

    def _documents(self, review: Review) -> list[str]:
        """Return the documents of the review's block, as far as the ledger knows them."""
        rows = LineageStore(self.ledger).of_scope(review.scope).values()
        sources = (read_source(row.made) for row in rows)
        reviews = ReviewStore(self.ledger).of_scope(review.scope).values()
        documents = (review.subject.document for review in reviews)
        return [
            *(source.path for source in sources if source is not None),
            *filter(None, documents),
        ]


def _required_claims(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not claims:
        raise CaseLeftOut("nothing that the pipeline writes or returns shows the decided value")
    return claims


def _without_others(documents: Iterable[str], document: str) -> Iterator[str]:
    """Yield globs that leave out the folders of documents, except for one document.

    >>> list(_without_others(["in/a.txt", "in/b.txt", "c.txt"], "in/a.txt"))
    ['!/*.txt', '!/in/**', '/in/a.txt']
    """
    found = [PurePosixPath(path) for path in (*documents, document)]
    folders = {path.parent for path in found if path.parent != PurePosixPath()}
    for suffix in sorted({path.suffix for path in found if path.parent == PurePosixPath()}):
        yield f"!/*{glob.escape(suffix, unix=True)}"
    for folder in sorted(folders):
        if not folders & set(folder.parents):
            yield f"!/{glob.escape(str(folder), unix=True)}/**"
    yield f"/{glob.escape(document, unix=True)}"


class DecidedAnswers(ForwardingPool):
    """A pool that answers from a ledger, and says the decided value where a review was edited."""

    def __init__(self, real: Pool, ledger: Ledger, review: Review) -> None:
        """`real` has facts and token counts; it answers nothing."""
        self._real = real
        self._review = review
        stats = RunStats("", "", Observer())
        origin = CallOrigin("", "", "", looks_up=True)
        made = LineageStore(ledger).of_item(review.scope, review.key)
        steps = () if made is None else read_lineage(made.made)[1]
        self._hashes = frozenset(
            call.hash for step in steps if step.id == review.step for call in step.calls
        )
        self._known = LedgerPool(real, ledger, RunModels(real.facts), stats, origin)

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._real

    def chat(self, request: ChatRequest) -> Stream:
        return whole_answer(request, self._reply)

    async def _reply(self, request: ChatRequest) -> Reply:
        known = await self._known.looked_up(request)
        row = known.row
        if row is None:
            raise UnknownReply("the ledger has no reply to this prompt; run the pipeline first.")
        reply = cached_reply(row)
        if self._review.state == "edited" and known.hash in (self._hashes or (known.hash,)):
            text = self._decided_text(reply.text)
            # The probabilities are those of the model's own text.
            return replace(reply, text=text, logprobs=reply.logprobs if text == reply.text else ())
        return reply

    def _decided_text(self, text: str) -> str:
        answer, value = self._review.subject.answer, self._review.value
        if isinstance(answer, str) and isinstance(value, str):
            return value if text.strip() == answer.strip() else text
        try:
            is_it = is_same_value(json.loads(text), answer)
        except ValueError:
            return text
        return json.dumps(value, ensure_ascii=False) if is_it else text

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        row = (await self._known.looked_up_vectors(request)).row
        if row is None:
            raise UnknownReply("the ledger has no vectors of these texts; run the pipeline first.")
        return cached_vectors(row)


# --- claims


def claims_for(value: Any, after: FinishedRun) -> list[dict[str, Any]]:
    """Return claims that hold where a decided value was carried out; none if it shows nowhere.

    A file that is the value counts most, then a value that the run returns, then a text that has
    all its parts.
    """
    folder = after.stage.folder
    written = sorted(path for path in recorded_outputs(folder) if path.is_relative_to(folder))
    files = [
        (escape_template(path.relative_to(folder).as_posix()), path)
        for path in written
        if path.is_file()
    ]
    for name, path in files:
        if path.suffix == ".json" and is_same_value(_json_of(path), value):
            return [{"file": name, "equals": _literal(value)}]
    for expression, returned in _parts("returns", after.report.returns, 0):
        if is_same_value(returned, value):
            return [{"of": expression, "equals": _literal(value)}]
    texts = [text for text in _texts(value) if text.strip()]
    for name, path in files:
        if texts and _contains(path, texts):
            return [{"file": name, "contains": [_literal(text) for text in texts]}]
    return []


def _contains(path: Path, texts: Iterable[str]) -> bool:
    """Return whether a file has all of these texts; none in JSON that is not valid."""
    if path.suffix == ".jsonl" or (path.suffix == ".json" and _json_of(path) is None):
        return False  # a claim on such a file fails unless it is valid
    written = _text_of(path)
    return all(text in written for text in texts)


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _json_of(path: Path) -> Any:
    try:
        return json.loads(_text_of(path))
    except ValueError:
        return None


def _parts(expression: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield a value and the values in it, each with the expression that names it."""
    yield expression, value
    if depth == MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            part = f".{name}" if re.fullmatch(r"[a-z_]\w*", str(name)) else f"[{json.dumps(name)}]"
            yield from _parts(f"{expression}{part}", inner, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _parts(f"{expression}[{index}]", inner, depth + 1)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
    elif value is not None and not isinstance(value, bool):
        text = value if isinstance(value, str) else json.dumps(value)
        yield text[:MAX_CLAIMED_CHARS]


def _literal(value: Any) -> Any:
    """Return a value as a template that renders to it."""
    if isinstance(value, Mapping):
        return {name: _literal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return escape_template(value) if isinstance(value, str) else value


# --- the pipeline's file


def with_tests(text: str, cases: Sequence[Mapping[str, Any]], file: str) -> str:
    """Return a pipeline's text with more tests at the end of its `tests`; all else stays.

    Raises:
        CaseLeftOut: its `tests` are not written as a block.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(end)
    at, indent = _place_of_tests(lines)
    block = to_yaml([dict(case) for case in cases]).rstrip("\n").split("\n")
    added = [f"{indent}{line}" if line else "" for line in block]
    if at is None:
        while lines and not lines[-1].strip():
            lines.pop()
        at, added = len(lines), ["", "tests:", *added]
        lines.append("")
    new = end.join([*lines[:at], *added, *lines[at:]])
    before = parse_yaml(text, file).data
    with suppress(PipelineError):
        if parse_yaml(new, file).data == {
            **before,
            "tests": [*(before.get("tests") or []), *cases],
        }:
            return new
    raise CaseLeftOut(
        f"`tests` of '{file}' cannot be added to: write it as a list with a line for each `-`."
    )


def _place_of_tests(lines: Sequence[str]) -> tuple[int | None, str]:
    """Return the line before which tests are added, None without `tests`; and their indent."""
    first = next((n for n, line in enumerate(lines) if re.match(r"tests[ \t]*:", line)), None)
    if first is None:
        return None, "  "
    last, indent = first, ""
    for number in range(first + 1, len(lines)):
        line = lines[number]
        if line.strip() and line[0] not in " \t#-":
            break
        if line.strip() and line[0] != "#":
            last = number
            indent = indent or (line[: len(line) - len(line.lstrip())] + "x")
    return last + 1, indent.removesuffix("x") if indent else "  "


def summary(done: ExportedCases, file: Path) -> str:
    shown = os.path.relpath(file)
    known = f"; {done.n_known:,} were there" if done.n_known else ""
    if not done.made:
        return f"No test was added to {shown}{known}."
    n = counted(len(done.made), "test")
    return (
        f"Added {n} to {shown}, with replies in {CASSETTE_FOLDER}{known}. `paddock test` runs them."
    )
