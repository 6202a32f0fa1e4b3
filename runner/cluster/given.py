"""Inputs as every machine understands them: folders and files by their absolute paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.runner.binding.bind import bind, plan_of
from paddock.runner.settings import Settings

if TYPE_CHECKING:
    from paddock.engine.request import Role


def absolute(file: Path, inputs: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Check the inputs of a pipeline, and give them with absolute paths.

    Raises:
        PipelineError: the YAML or an input is wrong.
    """
    models: dict[Role, str] = {"chat": settings.chat_model, "embed": settings.embed_model}
    bound = bind(plan_of(file), inputs, cwd=Path.cwd(), default_models=models)
    places = {name for name, kind in bound.input_types.items() if kind in ("dir", "path")}
    return {
        name: str(bound.inputs[name]) if name in places else value for name, value in inputs.items()
    }
