"""The tables of `tests`: a run with known inputs, and what must hold after it.

Knows no model and no file: `runner.trials` carries tests out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .checking.check import Check
from .checks import Checks
from .expressions import ExpressionError, Path
from .keys import Keys, Words

CLAIMS = (
    "exists", "absent", "check", "equals", "contains", "lacks", "regex", "schema", "similar",
    "judge", "status",
)  # fmt: skip
"""What a claim may say; each says exactly one of these."""
WITH_MODEL = ("similar", "judge")
WITHOUT_SUBJECT = ("exists", "absent", "status")
SEEN = frozenset(("inputs", "tmp"))
SEEN_AFTER = SEEN | {"returns", "report"}
SEEN_BY_CHECK = SEEN_AFTER | {"text", "output"}
MOST_REPEATS = 100

Text = Callable[..., None]
"""Keeps a text whose expressions are looked at: the value, its place, the names known there."""


def _regex(given: str) -> str:
    try:
        re.compile(given)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    return given


class Judge(Keys):
    """A question to a model, and what each of its answers counts."""

    prompt: str = Field(min_length=1, description="What it is asked; `text` is what is looked at.")
    system: str | None = Field(None, description="What it is told beforehand.")
    choices: dict[str, float] = Field(
        min_length=2,
        description="The answers that it may give; one that counts more than 0 passes.",
        examples=[{"yes": 1, "no": 0}],
    )


class Expect(Keys):
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
    contains: Words | None = Field(None, description="A text that must be in it, or several.")
    lacks: Words | None = Field(None, description="A text that must not be in it, or several.")
    regex: Annotated[str, AfterValidator(_regex)] | None = Field(
        None, description="A regular expression found in it."
    )
    schema_: Any = Field(
        None, alias="schema", description="JSON Schema, or its short form, that it must match."
    )
    similar: str | None = Field(
        None, description="A text whose meaning it must be near to, by an embedding model."
    )
    judge: str | Judge | None = Field(
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
        return next(name for name in CLAIMS if _field(name) in self.model_fields_set)

    @property
    def value(self) -> Any:
        """Give what the claim says, as it is written."""
        return getattr(self, _field(self.claim))

    @model_validator(mode="after")
    def _one_claim(self) -> Expect:
        claims = [name for name in CLAIMS if _field(name) in self.model_fields_set]
        if len(claims) != 1:
            names = ", ".join(f"`{name}`" for name in CLAIMS[:-1])
            both = f", not {' and '.join(f'`{name}`' for name in claims)}" if claims else ""
            raise ValueError(f"give exactly one of {names} and `{CLAIMS[-1]}`{both}")
        claim = claims[0]
        if self.value is None and claim != "equals":
            raise ValueError(f"give `{claim}` a value")
        if self.file is not None and self.of is not None:
            raise ValueError("give `file` or `of`, not both")
        if claim in WITHOUT_SUBJECT and (self.file or self.of) is not None:
            raise ValueError(f"`{claim}` looks at no text; remove `file` and `of`")
        if claim not in WITH_MODEL and self.model is not None:
            raise ValueError("`model` belongs to `similar` and `judge`")
        if claim != "similar" and "at_least" in self.model_fields_set:
            raise ValueError("`at_least` belongs to `similar`")
        return self


class Test(Keys):
    """A run with known inputs, on a copy of the pipeline's folder, and what must hold after it."""

    __test__ = False  # not one of pytest's

    name: str = Field(min_length=1, description="What is tested.")
    inputs: dict[str, Any] = Field(
        {}, description="The inputs of the run; `{{ tmp }}` is an empty folder."
    )
    replay: str | None = Field(
        None, min_length=1, description="A folder of recorded replies: no model is asked."
    )
    files: Words = Field(
        ["**/*"], description="Globs of the pipeline's folder: what its copy for the test holds."
    )
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] = Field(
        1, description="How often it is run; where a model samples, each time with another seed."
    )
    pass_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Which share of the repeats must pass."
    )
    expect: list[Expect] = Field([], description="What must hold afterwards.")


def read(checks: Checks, data: Any, text: Text) -> Iterator[Test]:
    """Read what stands under `tests`; faults go to `checks`, texts with expressions to `text`."""
    names: set[str] = set()
    for index, item in enumerate(data if isinstance(data, list) else ()):
        at: Path = ("tests", index)
        test = checks.table(Test, item, at)
        if test is None:
            continue
        if test.name in names:
            what = f"two tests have the name '{test.name}'"
            checks.add((*at, "name"), what, "Give each its own.")
        names.add(test.name)
        text(test.inputs, (*at, "inputs"), {"tmp"})
        for number, claim in enumerate(test.expect):
            _claim(claim, (*at, "expect", number), text)
        yield test


def _claim(claim: Expect, at: Path, text: Text) -> None:
    if claim.claim in ("exists", "absent"):
        text(claim.value, (*at, claim.claim), SEEN)
    elif claim.claim == "check":
        if isinstance(claim.check, str):
            names = SEEN_BY_CHECK | _called(claim.check)
            text(claim.check, (*at, "check"), names, bare=True)
    elif isinstance(claim.judge, Judge):
        text(claim.judge.prompt, (*at, "judge", "prompt"), SEEN_BY_CHECK)
    elif claim.claim in ("equals", "contains", "lacks", "similar", "judge"):
        text(claim.value, (*at, claim.claim), SEEN_AFTER)
    text(claim.file, (*at, "file"), SEEN)
    text(claim.of, (*at, "of"), SEEN_AFTER, bare=True)


def _called(check: str) -> frozenset[str]:
    """Name the functions that a check calls; whether they are there is seen when it is bound."""
    try:
        return frozenset(call.name for call in Check.of(check).calls)
    except ExpressionError:
        return frozenset()  # told with the text itself


def _field(claim: str) -> str:
    return "schema_" if claim == "schema" else claim
