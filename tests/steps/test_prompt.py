import asyncio
from pathlib import Path

import pytest

from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.prompt import Prompt, PromptParams
from tests.fakes.tools import tools


def prompt(text: str, **names: object) -> str:
    params = PromptParams(template=Template.of(text), vars=names)
    return asyncio.run(Prompt().run(params, tools(Path()))).text


def test_a_template_is_rendered_with_its_vars() -> None:
    assert prompt("Dear {{ who }}, {{ n + 1 }}", who="Ada", n=1) == "Dear Ada, 2"


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(StepError, match=r"`template` cannot be rendered: .*who"):
        prompt("Dear {{ who }}")
