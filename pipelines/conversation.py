"""A conversation that stands in a `.prompt.yml` file, where a prompt may stand. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import PipelineError
from .expressions import ExpressionError, Template


class Conversation(Template):
    """A template whose text is that of all its messages; `chat` takes them one by one."""

    __slots__ = ("params", "schema", "turns")

    turns: tuple[tuple[str, Template], ...]
    """Role and text of each message."""
    params: Mapping[str, Any]
    """Sampling parameters that the file sets."""
    schema: Any
    """The JSON Schema that the answer must match; None where it is free text."""

    @classmethod
    def read(cls, text: str, file: str, name: str) -> Conversation:
        """Read a file's text; `name` is how the pipeline calls the file.

        Raises:
            ExpressionError: it is no conversation, with the line.
        """
        from .prompt_file import as_template, read  # few pipelines name such a file

        try:
            found = read(text, file)
        except PipelineError as error:
            fault = error.faults[0]
            line = f", line {fault.mark.line}" if fault.mark else ""
            message = f"in the file '{name}'{line}: {fault.message.rstrip('.')}"
            raise ExpressionError(message, fault.remedy) from None
        turns = tuple((one.role, Template.of(as_template(one.content))) for one in found.messages)
        params, schema = found.parameters.given(), found.schema_of_answer
        # What decides an answer, in one text: it is part of the ledger's keys.
        written = [f"[{role}]\n{template.source}" for role, template in turns]
        told = {"params": params, "schema": schema}
        more = json.dumps({k: v for k, v in told.items() if v}, sort_keys=True)
        whole = Template.of("\n".join([*written, *([as_template(more)] if more != "{}" else [])]))
        made = cls(whole.source, whole._compiled, file, {})
        made.turns, made.params, made.schema = turns, params, schema
        return made

    def bound(self, scope: Mapping[str, Any]) -> Conversation:
        """Give the same conversation over this scope."""
        made = Conversation(self.source, self._compiled, self.file, scope)
        made.turns = tuple((role, one.bound(scope)) for role, one in self.turns)
        made.params, made.schema = self.params, self.schema
        return made
