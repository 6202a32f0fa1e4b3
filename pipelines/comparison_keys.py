"""Keys of comparisons: `gold`, what is right, and `compare`, what is varied and promised."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from .keys import Keys, PositiveInt
from .quantities import Seconds

MetricName: TypeAlias = Literal["exact", "label", "number", "date", "list", "text"]
"""How a field of an answer is compared with gold."""


class NumberMetricKeys(Keys):
    """A number that may be off."""

    number: float = Field(ge=0, description="How far off is still right.")


class GoldKeys(Keys):
    """What is right, so that answers can be compared with it."""

    from_: str = Field(
        alias="from",
        min_length=1,
        description="`reviews` (what people decided here), the path of a CSV or JSON lines file, "
        "or a bare expression over another step: `steps.big.output`.",
        examples=["reviews", "gold.csv"],
    )
    key: str | None = Field(
        None,
        description="A bare expression over an item: what the column of the same last name "
        "(`relpath`) has for it. By default the item's own key, in the column `item` or `key`, "
        "else in the first.",
        examples=["doc.relpath"],
    )
    step: str | None = Field(
        None, description="The step whose answers are compared; by default the only one."
    )
    metrics: dict[str, MetricName | NumberMetricKeys] = Field(
        {},
        description="Fields and how they are compared: `exact`, `label`, `number`, `date`, `list` "
        "(F1), `text` (edit distance) or `{number: 0.01}`; by default as schema and values say.",
    )


class CompareKeys(Keys):
    """What `paddock compare` does; an option of the command replaces its key.

    One of `--model`, `--prompt` and `--set` replaces all three.
    """

    model: dict[str, str | list[str]] = Field(
        {}, description="Models for a name under `models`.", examples=[{"clerk": ["a", "b"]}]
    )
    prompt: dict[str, str | list[str]] = Field(
        {}, description="Prompt files for a step.", examples=[{"bill": ["a.md", "b.md"]}]
    )
    set: dict[str, Any] = Field(
        {},
        description="Values for a key of a step: one, or a list of them.",
        examples=[{"bill.params.temperature": [0, 0.7]}],
    )
    step: str | None = Field(None, description="The step whose answers are compared.")
    budget: Seconds | None = Field(None, description="Stop after this time.")
    sample: PositiveInt | None = Field(
        None, description="Compare on so many documents, the same each time."
    )
    against: str | None = Field(
        None,
        min_length=1,
        description="An earlier result of `--json`; status 4 if this one is worse.",
        examples=["main.json"],
    )
    allow_loss: float = Field(
        0.0, ge=0, le=1, description="With `against`: how much worse is not worse."
    )
