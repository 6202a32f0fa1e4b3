"""Tables of `tests`: a run with known inputs, and the expectations that must hold after it.

Knows no model and no file: `paddock test` carries tests out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from paddock.pipelines.checking.check import Check

from .expressions import ExpressionError, Path
from .keys import Keys, TextList
from .validation import FaultCollector

EXPECTATION_KEYS = (
    "exists", "absent", "check", "equals", "contains", "lacks", "regex", "schema", "similar",
    "judge", "status",
)  # fmt: skip
"""What a claim may say; each says exactly one of these."""
EXPECTATIONS_WITH_MODEL = ("similar", "judge")
EXPECTATIONS_WITHOUT_SUBJECT = ("exists", "absent", "status")
TEST_NAMES = frozenset(("inputs", "tmp"))
NAMES_AFTER_RUN = TEST_NAMES | {"returns", "report"}
NAMES_IN_CHECK = NAMES_AFTER_RUN | {"text", "output"}
MOST_REPEATS = 100

TextReader = Callable[..., None]
"""Keeps a text whose expressions are looked at: the value, its place, the names known there."""


def _regex(given: str) -> str:
    try:
        re.compile(given)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    return given


class JudgeKeys(Keys):
    """A question to a model, and what each of its answers counts."""

    prompt: str = Field(min_length=1, description="What it is asked; `text` is what is looked at.")
    system: str | None = Field(None, description="What it is told beforehand.")
    choices: dict[str, float] = Field(
        min_length=2,
        description="The answers that it may give; one that counts more than 0 passes.",
        examples=[{"yes": 1, "no": 0}],
    )


class ExpectKeys(Keys):
    """One thing that must hold after a test."""

    exists: str | None = Field(None, description="A file or folder that must be there.")
    absent: str | None = Field(None, description="A file or folder that must not be there.")
    check: str | bool | None = Field(
        None,
        description="A bare expression that must be true; it sees `returns`, `report`, `inputs`, "
        "`tmp`, and what is looked at as `text` and `output`.",
        examples=["returns.counts.failed == 0"],
    )
    equals: Any = Field(None, description="What it must be.")
    contains: TextList | None = Field(None, description="A text that must be in it, or several.")
    lacks: TextList | None = Field(None, description="A text that must not be in it, or several.")
    regex: Annotated[str, AfterValidator(_regex)] | None = Field(
        None, description="A regular expression found in it."
    )
    schema_: Any = Field(
        None, alias="schema", description="JSON Schema, or its short form, that it must match."
    )
    similar: str | None = Field(
        None, description="A text whose meaning it must be near to, by an embedding model."
    )
    judge: str | JudgeKeys | None = Field(
        None, description="What a model must find true of it, or a prompt with choices."
    )
    status: Literal["completed", "quarantined", "failed", "budget"] | None = Field(
        None, description="How the run must end; without this claim: `completed`."
    )
    file: str | None = Field(None, description="The file that is looked at.")
    of: str | None = Field(
        None,
        description="A bare expression: what is looked at; without it and `file`, `returns`.",
        examples=["returns.summary"],
    )
    at_least: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.8, description="Of `similar`: the least cosine of the two vectors."
    )
    model: str | None = Field(None, description="Of `similar` and `judge`: which model decides.")

    @property
    def claim(self) -> str:
        """Name what is claimed, as it is written."""
        return next(name for name in EXPECTATION_KEYS if _field(name) in self.model_fields_set)

    @property
    def value(self) -> Any:
        """Return what the claim says, as it is written."""
        return getattr(self, _field(self.claim))

    @model_validator(mode="after")
    def _one_claim(self) -> ExpectKeys:
        claims = [name for name in EXPECTATION_KEYS if _field(name) in self.model_fields_set]
        if len(claims) != 1:
            names = ", ".join(f"`{name}`" for name in EXPECTATION_KEYS[:-1])
            both = f", not {' and '.join(f'`{name}`' for name in claims)}" if claims else ""
            raise ValueError(f"give exactly one of {names} and `{EXPECTATION_KEYS[-1]}`{both}")
        claim = claims[0]
        if self.value is None and claim != "equals":
            raise ValueError(f"give `{claim}` a value")
        if self.file is not None and self.of is not None:
            raise ValueError("give `file` or `of`, not both")
        if claim in EXPECTATIONS_WITHOUT_SUBJECT and (self.file or self.of) is not None:
            raise ValueError(f"`{claim}` looks at no text; remove `file` and `of`")
        if claim not in EXPECTATIONS_WITH_MODEL and self.model is not None:
            raise ValueError("`model` belongs to `similar` and `judge`")
        if claim != "similar" and "at_least" in self.model_fields_set:
            raise ValueError("`at_least` belongs to `similar`")
        return self


class TestKeys(Keys):
    """A run with known inputs, on a copy of the pipeline's folder, and what must hold after it."""

    __test__ = False  # not one of pytest's

    name: str = Field(min_length=1, description="What is tested.")
    inputs: dict[str, Any] = Field(
        {}, description="The inputs of the run; `{{ tmp }}` is an empty folder."
    )
    replay: str | None = Field(
        None, min_length=1, description="A folder of recorded replies: no model is asked."
    )
    files: TextList = Field(
        ["**/*"], description="Globs of the pipeline's folder: what its copy for the test holds."
    )
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] = Field(
        1, description="How often it is run; where a model samples, each time with another seed."
    )
    pass_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Which share of the repeats must pass."
    )
    expect: list[ExpectKeys] = Field([], description="What must hold afterwards.")


def read_tests(checks: FaultCollector, data: Any, text: TextReader) -> Iterator[TestKeys]:
    """Read what stands under `tests`; faults go to `checks`, texts with expressions to `text`."""
    names: set[str] = set()
    for index, item in enumerate(data if isinstance(data, list) else ()):
        at: Path = ("tests", index)
        test = checks.table(TestKeys, item, at)
        if test is None:
            continue
        if test.name in names:
            what = f"two tests have the name '{test.name}'"
            checks.add((*at, "name"), what, "Give each its own.")
        names.add(test.name)
        text(test.inputs, (*at, "inputs"), {"tmp"})
        for number, claim in enumerate(test.expect):
            _check_expectation(claim, (*at, "expect", number), text)
        yield test


def _check_expectation(claim: ExpectKeys, at: Path, text: TextReader) -> None:
    if claim.claim in ("exists", "absent"):
        text(claim.value, (*at, claim.claim), TEST_NAMES)
    elif claim.claim == "check":
        if isinstance(claim.check, str):
            names = NAMES_IN_CHECK | _names_called(claim.check)
            text(claim.check, (*at, "check"), names, bare=True)
    elif isinstance(claim.judge, JudgeKeys):
        text(claim.judge.prompt, (*at, "judge", "prompt"), NAMES_IN_CHECK)
    elif claim.claim in ("equals", "contains", "lacks", "similar", "judge"):
        text(claim.value, (*at, claim.claim), NAMES_AFTER_RUN)
    text(claim.file, (*at, "file"), TEST_NAMES)
    text(claim.of, (*at, "of"), NAMES_AFTER_RUN, bare=True)


def _names_called(check: str) -> frozenset[str]:
    """Name the functions that a check calls; whether they are there is seen when it is bound."""
    try:
        return frozenset(call.name for call in Check.of(check).calls)
    except ExpressionError:
        return frozenset()  # told with the text itself


def _field(claim: str) -> str:
    return "schema_" if claim == "schema" else claim
