"""Tables of `tests`: a run with known inputs, and the expectations that must hold after it.

Knows no model and no file: `paddock test` runs the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from paddock.pipelines.reply_check import Check

from .errors import MustBe
from .expressions import ExpressionError, Path
from .keys import Keys, TextList
from .validation import FaultCollector

EXPECTATION_KEYS = (
    "exists", "absent", "check", "equals", "contains", "lacks", "regex", "schema", "similar",
    "judge", "status",
)  # fmt: skip
"""The kinds of expectations; each entry has exactly one of these keys."""
EXPECTATIONS_WITH_MODEL = ("similar", "judge")
TEST_NAMES = frozenset(("inputs", "tmp"))
NAMES_AFTER_RUN = TEST_NAMES | {"returns", "report"}
NAMES_IN_CHECK = NAMES_AFTER_RUN | {"text", "output"}
MOST_REPEATS = 100
NAME_OF_SINGLE = "cases"
"""Of a test that is written without a list and a name."""

TextReader = Callable[..., None]
"""Keeps a text whose references are checked: value, path, and names known there."""


def _regex(given: str) -> str:
    try:
        re.compile(given)
    except re.error as error:
        raise MustBe(f"must be a regular expression: {error}") from error
    return given


class JudgeKeys(Keys):
    """A question to a model, and the score of each answer."""

    prompt: str = Field(min_length=1, description="The question; `text` is the text in question.")
    system: str | None = Field(None, description="The system prompt.")
    choices: dict[str, float] = Field(
        min_length=2,
        description="The possible answers with their scores; above 0 passes.",
        examples=[{"yes": 1, "no": 0}],
    )


class ExpectKeys(Keys):
    """One expectation: what must hold after a test."""

    exists: str | None = Field(None, description="A file or folder that must be there.")
    absent: str | None = Field(None, description="A file or folder that must not be there.")
    check: str | bool | None = Field(
        None,
        description="A bare expression that must be true; it sees `returns`, `report`, `inputs`, "
        "`tmp`, and the subject as `text` and `output`.",
        examples=["returns.counts.failed == 0"],
    )
    equals: Any = Field(None, description="The value that it must equal.")
    contains: TextList | None = Field(None, description="A text that it must contain, or several.")
    lacks: TextList | None = Field(None, description="A text that it must not contain, or several.")
    regex: Annotated[str, AfterValidator(_regex)] | None = Field(
        None, description="A regular expression that it must match somewhere."
    )
    schema_: Any = Field(
        None, alias="schema", description="JSON Schema, or its short form, that it must match."
    )
    similar: str | None = Field(
        None, description="A text that it must be similar to, by an embedding model."
    )
    judge: str | JudgeKeys | None = Field(
        None, description="A statement that a model must find true of it, or a prompt with choices."
    )
    status: Literal["completed", "quarantined", "failed", "budget"] | None = Field(
        None, description="How the run must end; by default `completed`."
    )
    file: str | None = Field(None, description="The subject: a file.")
    of: str | None = Field(
        None,
        description="The subject: a bare expression; by default `returns`.",
        examples=["returns.summary"],
    )
    at_least: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.8, description="For `similar`: the smallest cosine of the two vectors."
    )
    model: str | None = Field(None, description="For `similar` and `judge`: the model.")

    @property
    def claim(self) -> str:
        given = {name.rstrip("_") for name in self.model_fields_set}
        return next(name for name in EXPECTATION_KEYS if name in given)

    @property
    def value(self) -> Any:
        return getattr(self, "schema_" if self.claim == "schema" else self.claim)

    @model_validator(mode="after")
    def _one_claim_with_its_keys(self) -> ExpectKeys:
        given = {name.rstrip("_") for name in self.model_fields_set}
        claims = [name for name in EXPECTATION_KEYS if name in given]
        if len(claims) != 1:
            names = ", ".join(f"`{name}`" for name in EXPECTATION_KEYS[:-1])
            both = f", not {' and '.join(f'`{name}`' for name in claims)}" if claims else ""
            raise ValueError(f"give exactly one of {names} and `{EXPECTATION_KEYS[-1]}`{both}")
        claim = claims[0]
        if self.value is None and claim != "equals":
            raise ValueError(f"give `{claim}` a value")
        if self.file is not None and self.of is not None:
            raise ValueError("give `file` or `of`, not both")
        if claim in ("exists", "absent", "status") and (self.file or self.of) is not None:
            raise ValueError(f"`{claim}` has no subject; remove `file` and `of`")
        if claim not in EXPECTATIONS_WITH_MODEL and self.model is not None:
            raise ValueError("`model` belongs to `similar` and `judge`")
        if claim != "similar" and "at_least" in self.model_fields_set:
            raise ValueError("`at_least` belongs to `similar`")
        return self


class CasesKeys(Keys):
    """A data set: the test runs once for each of its rows."""

    from_: str = Field(
        alias="from",
        min_length=1,
        description="A file of rows, such as a CSV; a row is `case` in `inputs` and `expect`.",
        examples=["tests/cases.csv"],
    )


class TestKeys(Keys):
    """A run with known inputs, on a copy of the pipeline's folder, and what must hold after it."""

    __test__ = False  # not one of pytest's

    name: str = Field(min_length=1, description="What is tested.")
    inputs: dict[str, Any] = Field(
        {}, description="The inputs of the run; `{{ tmp }}` is an empty folder."
    )
    replay: str | None = Field(
        None, min_length=1, description="A folder of recorded replies, used in place of models."
    )
    files: TextList = Field(
        ["**/*"],
        description="Globs of the files that are copied for the test; with `cases`, "
        "they may name a row's: `/{{ case.document }}`.",
    )
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] = Field(
        1, description="How often it runs; each time with another seed where a model samples."
    )
    pass_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="The share of the repeats that must pass."
    )
    cases: CasesKeys | None = Field(None, description="A data set, each row of which is a run.")
    pass_: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, alias="pass", description="The share of the rows of `cases` that must pass."
    )
    review: Literal["ask", "fail", "skip", "accept"] = Field(
        "ask", description="What becomes of answers whose `review` is due, as `run --review` says."
    )
    expect: list[ExpectKeys] = Field(min_length=1, description="What must hold afterwards.")

    @model_validator(mode="after")
    def _of_cases(self) -> TestKeys:
        if self.cases is None and "pass_" in self.model_fields_set:
            raise ValueError("`pass` belongs to `cases`; of `repeat` it is `pass_rate`")
        if self.cases is not None and self.repeat > 1:
            raise ValueError("give `cases` or `repeat`, not both")
        return self


def written_tests(data: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each test as it is written, with its place; a table is a single test."""
    if isinstance(data, dict):
        yield ("tests",), {"name": NAME_OF_SINGLE, **data}
    for index, item in enumerate(data if isinstance(data, list) else ()):
        yield ("tests", index), item


def read_tests(checks: FaultCollector, data: Any, text: TextReader) -> Iterator[TestKeys]:
    """Parse `tests`; faults go to `checks`, texts with expressions to `text`."""
    names: set[str] = set()
    for at, item in written_tests(data):
        test = checks.table(TestKeys, item, at)
        if test is None:
            continue
        if test.name in names:
            what = f"two tests have the name '{test.name}'"
            checks.add((*at, "name"), what, "Give each its own.")
        names.add(test.name)
        row: Set[str] = frozenset() if test.cases is None else {"case"}
        text(test.inputs, (*at, "inputs"), {"tmp", *row})
        if row:
            text(test.files, (*at, "files"), row)
        for number, claim in enumerate(test.expect):
            _check_expectation(claim, (*at, "expect", number), text, row)
        yield test


def _check_expectation(claim: ExpectKeys, at: Path, text: TextReader, row: Set[str]) -> None:
    """Keep the texts of a claim; `row` has the name of a data set's row, if there is one."""
    if claim.claim in ("exists", "absent"):
        text(claim.value, (*at, claim.claim), TEST_NAMES | row)
    elif claim.claim == "check":
        if isinstance(claim.check, str):
            # The functions that a check calls; binding checks that they exist.
            try:
                names_called = frozenset(call.name for call in Check.of(claim.check).calls)
            except ExpressionError:
                names_called = frozenset()  # reported with the text itself
            names = NAMES_IN_CHECK | row | names_called
            text(claim.check, (*at, "check"), names, bare=True)
    elif isinstance(claim.judge, JudgeKeys):
        text(claim.judge.prompt, (*at, "judge", "prompt"), NAMES_IN_CHECK | row)
    elif claim.claim in ("equals", "contains", "lacks", "similar", "judge"):
        text(claim.value, (*at, claim.claim), NAMES_AFTER_RUN | row)
    text(claim.file, (*at, "file"), TEST_NAMES | row)
    text(claim.of, (*at, "of"), NAMES_AFTER_RUN | row, bare=True)
