"""The step `prompt`: render a template to text. The smallest step, as an example for others."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from paddock.pipelines.expressions import ExpressionError, Template

from .base import Output, Params, Step, StepError, Tools
from .facts import Facts, TextFacts, brings_none


class PromptParams(Params):
    template: Template = Field(description="The text, with expressions in it.")
    vars: dict[str, Any] = Field(default={}, description="More names that the template may use.")


class PromptOutput(Output):
    text: str


class Prompt(Step[PromptParams, PromptOutput]):
    """Render a template to text."""

    params = PromptParams
    output = PromptOutput
    is_pure = True
    facts = Facts(is_repeatable=True, is_template=True, texts=TextFacts(brings_none))

    async def run(self, params: PromptParams, tools: Tools) -> PromptOutput:
        """Render it.

        Raises:
            StepError: an expression in it failed.
        """
        return PromptOutput(text=render_template(params.template, "template", params.vars))


def render_template(template: Template, parameter: str, names: dict[str, Any]) -> str:
    """Render a step's template.

    Raises:
        StepError: with the parameter's name and the reason.
    """
    try:
        return template.render(**names)
    except ExpressionError as error:
        raise StepError(f"`{parameter}` cannot be rendered: {error}") from error
