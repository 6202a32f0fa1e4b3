"""Sampling parameters that an author sets: `params` of a step or of a model.

Imports nothing of the engine: the runner reads models' parameters with it before any engine is
needed.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paddock.pipelines.keys import without_x_keys


class SamplingParams(BaseModel):
    """The names and ranges of `params`; what is left out is decided by model and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(
        default=None, ge=0, le=5, description="0 always takes the likeliest token; higher is freer."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Choose among the likeliest tokens that share this much.",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Choose among this many of the likeliest tokens; 0 for all."
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Leave out tokens below this share of the likeliest one.",
    )
    repeat_penalty: float | None = Field(
        default=None, gt=0, le=5, description="Above 1 makes recent tokens less likely."
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Above 0 makes tokens that occurred less likely."
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Above 0 makes tokens less likely each time they occur.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="The same seed, the same answer."
    )
    stop: str | list[str] | None = Field(
        default=None, description="Texts at which the answer ends."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="The longest answer in tokens; an answer that ends there is then no error.",
    )
    num_predict: int | None = Field(
        default=None, ge=1, description="Another name for `max_tokens`."
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_free_keys(cls, given: Any) -> Any:
        return without_x_keys(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _one_limit(self) -> SamplingParams:
        if self.max_tokens is not None and self.num_predict is not None:
            raise ValueError("give `max_tokens` or `num_predict`, they mean the same")
        return self

    def given(self) -> dict[str, Any]:
        """Return what the author set, by the names of `engine.request.Sampling`."""
        values = self.model_dump(exclude_none=True)
        if "num_predict" in values:
            values["max_tokens"] = values.pop("num_predict")
        return values
