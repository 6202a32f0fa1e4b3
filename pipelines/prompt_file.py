"""Text parameters that name a file: templates, and conversations in `.messages.yaml` files.

A file must lie under the pipeline's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paddock.engine.system.no_links import read_file
from paddock.engine.system.records import replace

from . import yaml_source
from .errors import PipelineError
from .expressions import ExpressionError, Template
from .validation import FaultCollector

MESSAGES_SUFFIXES = (".messages.yaml", ".messages.yml")
GITHUB_SUFFIXES = (".prompt.yml", ".prompt.yaml")
"""Of GitHub Models, which are not read."""


def github_prompt_remedy(name: str) -> str:
    own = name[: name.lower().index(".prompt.y")] + MESSAGES_SUFFIXES[0]
    return (
        f"Write its messages in '{own}', as a list of `{{role: user, content: …}}` whose contents "
        "are templates; parameters under the step's `params`, a schema under its `reply`, tests "
        "under the pipeline's `tests`."
    )


class MessageParam(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"] = Field(description="Whose message it is.")
    content: str = Field(description="The text.")


class ConversationTemplate(Template, eq=False):
    """A template with the text of all messages; `chat` takes them one by one."""

    turns: tuple[tuple[str, Template], ...]

    @classmethod
    def read(cls, text: str, file: str, name: str) -> ConversationTemplate:
        """Parse a file's text; `name` is the file as written in the pipeline.

        Raises:
            ExpressionError: it is not a conversation; with the line.
        """
        try:
            document = yaml_source.parse_yaml(text, file)
            checks = FaultCollector(document)
            turns = list[tuple[str, Template]]()
            if not isinstance(document.data, list) or not document.data:
                checks.add((), "a list of messages is missing", "Begin with `- role: user`.")
            for index, written in enumerate(document.data if not checks.faults else ()):
                message = checks.table(MessageParam, written, (index,))
                if message is not None:
                    try:
                        turns.append((message.role, Template.of(message.content)))
                    except ExpressionError as error:
                        checks.failed(error, (index, "content"))
            checks.raise_faults()
        except PipelineError as error:
            fault = error.faults[0]
            line = f", line {fault.mark.line}" if fault.mark else ""
            what = f"in the file '{name}'{line}: {fault.message.rstrip('.')}"
            raise ExpressionError(what, fault.remedy) from None
        # All that decides an answer, as one text: part of the ledger's keys.
        whole = Template.of("\n".join(f"[{role}]\n{template.source}" for role, template in turns))
        return cls(whole.source, whole._compiled, file, {}, tuple(turns))

    def bound(self, scope: Mapping[str, Any]) -> ConversationTemplate:
        turns = tuple((role, template.bound(scope)) for role, template in self.turns)
        return replace(self, _scope=scope, turns=turns)


TEXT_OR_FILE_PARAMETERS: Mapping[str, frozenset[str]] = {
    "prompt": frozenset(),
    "template": frozenset(),
    "map": frozenset(("chunk", "index", "previous")),
    "reduce": frozenset(("notes",)),
    "system": frozenset(),
    "instructions": frozenset(),
    "schema": frozenset(),
}
"""Parameters of built-in steps that take text or a file, with the names they add."""

MAX_TEXT_FILE_BYTES = 1024 * 1024


def is_file_reference(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"file"}


def read_template_file(base: FilePath, name: Any) -> Template:
    """Read a template file; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it does not exist, lies elsewhere, or is not a template.
    """
    path = _path_under(base, name)
    if name.lower().endswith(GITHUB_SUFFIXES):
        what = f"the file '{name}' is in the form of GitHub Models, which is not read"
        raise ExpressionError(what, github_prompt_remedy(name))
    text = _text_of_file(path, name)
    if name.lower().endswith(MESSAGES_SUFFIXES):
        return ConversationTemplate.read(text, str(path), name)
    try:
        return Template.of(text, str(path))
    except ExpressionError as error:
        line = f", line {error.line}" if error.line else ""
        raise ExpressionError(
            f"in the file '{name}'{line}: {error.message}", error.remedy
        ) from None


def read_raw_file(base: FilePath, name: Any) -> str:
    """Read a file's text; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it does not exist, or lies elsewhere.
    """
    return _text_of_file(_path_under(base, name), name)


def _path_under(base: FilePath, name: Any) -> FilePath:
    if not isinstance(name, str) or not name:
        raise ExpressionError("`file` must be the path of a file")
    if "{{" in name or "\0" in name:
        raise ExpressionError(
            f"the name of a template file must be a literal, not '{name}'",
            "Choose between files with `if` on two steps.",
        )
    root = base.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError) as error:  # too long a name, a circle of symlinks
        raise ExpressionError(f"the file '{name[:60]}' cannot be used as a path") from error
    if not path.is_relative_to(root):
        raise ExpressionError(
            f"the file '{name}' lies outside the pipeline's folder", "Move or copy it there."
        )
    if any(part.casefold() == ".paddock" for part in path.relative_to(root).parts):
        raise ExpressionError(
            f"the file '{name}' lies in '.paddock', where Paddock keeps its own state",
            "Move or copy it elsewhere.",
        )
    return path


def _text_of_file(path: FilePath, name: str) -> str:
    try:
        raw = read_file(path, MAX_TEXT_FILE_BYTES)
    except FileNotFoundError:
        raise ExpressionError(
            f"there is no file '{name}'", "Paths are relative to the YAML; create or correct it."
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ExpressionError(f"the file '{name}' cannot be read: {why}") from error
    if len(raw) > MAX_TEXT_FILE_BYTES:
        raise ExpressionError(f"the file '{name}' is larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ExpressionError(f"the file '{name}' is not UTF-8 text", "Save it as UTF-8.") from None
