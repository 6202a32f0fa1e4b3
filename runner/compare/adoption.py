"""Adopt a variant: write its values into the pipeline's file; comments and layout stay. Pure.

Values are replaced where they stand, and added to the mapping that they belong to. The new text is
read again: it must hold the variant and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.yaml_source import YamlDocument, parse_yaml
from paddock.runner.bind.variations import Variant, changed

_PLAIN = re.compile(r"[A-Za-z0-9][\w./:+-]*[\w+-]|[A-Za-z]")
"""A text that needs no quotes, if it reads back as itself."""


class CannotAdopt(Exception):
    """The file is written in a way that cannot be changed safely; one sentence."""


def adopted_text(text: str, file: str, variant: Variant, compared: Mapping[str, Any]) -> str:
    """Return the text of a pipeline's file with a variant's values; `compared`: its data then.

    Raises:
        CannotAdopt: it has to be changed by hand, or was changed since: a change's place, such as
            the second step, may be another step's now.
    """
    try:
        is_same = parse_yaml(text, file).data == compared
    except PipelineError:
        is_same = False
    if not is_same:
        raise CannotAdopt(
            f"{file} was changed while its variants were compared, so '{variant.name}' is not "
            "adopted. Compare again: known calls are not made again."
        )
    requested_data = changed(compared, variant.changes)
    new = text
    try:
        for change in variant.changes:
            new = _with_value(new, parse_yaml(new, file), change.at, change.value)
        if parse_yaml(new, file).data == requested_data:
            return new
    except PipelineError:
        pass
    names = ", ".join(f"`{change.name}`" for change in variant.changes)
    raise CannotAdopt(
        f"{file} cannot be changed without losing its layout. Write by hand: {names}."
    )


def _with_value(text: str, document: YamlDocument, at: Place, value: Any) -> str:
    span = document.span(at)
    if span is None:
        return _with_new_key(text, document, at, value)
    if (
        isinstance(value, dict)
        and span.is_mapping
        and reduce(getitem, at, document.data).keys() == value.keys()
    ):
        for name, inner in value.items():
            text = _with_value(text, parse_yaml(text, document.file), (*at, name), inner)
        return text
    end = span.start + len(text[span.start : span.end].rstrip())
    return text[: span.start] + _flow_text(value) + text[end:]


def _with_new_key(text: str, document: YamlDocument, at: Place, value: Any) -> str:
    """Return the text with a key that is not there yet, in the nearest mapping around it."""
    depth = next(n for n in range(len(at) - 1, -1, -1) if document.span(at[:n]) is not None)
    for name in reversed(at[depth + 1 :]):
        value = {name: value}
    around = document.span(at[:depth])
    assert around is not None
    entry = f"{at[depth]}: {_flow_text(value)}"
    if not around.is_mapping:
        return text  # read again, it does not hold the variant
    if not around.is_flow:
        # A line below the last one of a block
        end = around.start + len(text[around.start : around.end].rstrip())
        below = text.find("\n", end)
        below = len(text) if below < 0 else below
        line_end = "\n"
        if text[below - 1 : below] == "\r":
            below -= 1
            line_end = "\r\n"
        return f"{text[:below]}{line_end}{' ' * around.column}{entry}{text[below:]}"
    inner = text[around.start : around.end - 1].rstrip()
    comma = "" if inner.endswith(("{", ",")) else ", "
    return inner.join((text[: around.start], f"{comma}{entry}{text[around.end - 1 :]}"))


def _flow_text(value: Any) -> str:
    """Return a value as it is written on one line.

    >>> _flow_text({"file": "prompts/a.md"}), _flow_text("0.5"), _flow_text(0.5)
    ('{file: prompts/a.md}', '"0.5"', '0.5')
    """
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{name}: {_flow_text(inner)}" for name, inner in value.items()) + "}"
        )
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse_yaml(value, "").data == value:
        return value
    return json.dumps(value, ensure_ascii=False)
