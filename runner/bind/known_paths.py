"""Paths of a pipeline as far as they are known before a run: its folders, where its steps write.

They are known as far as they depend on nothing but the inputs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.pipelines.model import Pipeline, StepNode
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import OutsideRoots, Params, Roots
from paddock.steps.registry import facts_of

from .inputs import KnownInputs

SHOWN_LATER = "…"
"""In a path: what only a run shows."""
YAML_SUFFIXES = (".yaml", ".yml")
EXPRESSION = re.compile(r"(\{\{.*?\}\})", re.DOTALL)
_STATEMENT = re.compile(r"\{[%#]")


@dataclass(frozen=True, slots=True)
class WrittenPlace:
    """Where a step writes, as far as it is known; `…` stands for what only a run shows."""

    step: StepNode
    text: str
    path: Path
    param: str
    """The parameter that says so."""
    is_new: bool = True
    """Whether something is there afterwards."""


class KnownPaths:
    """The paths in one pipeline and those that its steps run, by what is known of their inputs."""

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any],
        roots: Roots,
        within: Iterable[tuple[Pipeline, Mapping[str, Any], Path]] = (),
    ) -> None:
        """`within` are the pipelines that steps run, with their inputs and folders."""
        self.roots = roots
        self._pipeline = pipeline
        self._pipelines: list[tuple[Pipeline, KnownInputs, Path]] = []
        """This one and those within it, each with what is known of its inputs, and its folder."""
        for plan, given, base in ((pipeline, inputs, roots.base), *within):
            self._pipelines.append((plan, KnownInputs.that_are_given(given), base))
        self._known = self._pipelines[0][1]

    def text_of(self, written: object) -> str | None:
        """Return a path of this pipeline's own, with `…` for what is not known; None: no text."""
        return _known_path(written, self._known)

    def folders(self) -> tuple[Path, ...]:
        """Return the folders where documents arrive or are written, resolved.

        These are watched folders, scanned ones, `dir` inputs, stores, and folders that files are
        written to. The pipeline's own folder is among them where documents arrive in it. What lies
        outside the folders that it may touch is none: no step may read or write there.
        """
        found: dict[Path, None] = {}
        for text, base, is_file in self._folder_texts():
            place = _folder_of(text, is_file=is_file)
            if place is not None:
                named = Path(os.path.normpath(base / place))
                folder = resolved(named)
                tops = (base, *self.roots.allowed)
                if any(path.is_relative_to(top) for path in (named, folder) for top in tops):
                    found[folder] = None
        return tuple(found)

    def _folder_texts(self) -> Iterator[tuple[str, Path, bool]]:
        """Yield texts of paths with the folder they start from, and whether they name a file."""
        for keys in self._pipeline.on.watch if self._pipeline.on else ():
            yield self.text_of(keys.path) or SHOWN_LATER, self.roots.base, False
        for pipeline, known, base in self._pipelines:
            for name, declared in pipeline.inputs.items():
                value = known.get(name)
                if declared.type == "dir" and isinstance(value, str):
                    yield value, base, False
        for step, known, base in self._steps():
            for text, is_file in _step_paths(step):
                yield _known_path(text, known) or SHOWN_LATER, base, is_file

    def scanned_folders(self) -> Iterator[str | None]:
        """Yield the folders that steps list, absolute where all of a path is known."""
        for step, known, base in self._steps():
            if name := facts_of(step.uses).lists:
                text = _known_path(step.params.data.get(name), known)
                yield text if text is None or SHOWN_LATER in text else str(base / text)

    def written_files(self, *, is_own: bool = False) -> Iterator[WrittenPlace]:
        """Yield where steps write, as far as it is known at least by its beginning.

        `is_own`: this pipeline's own steps alone.
        """
        for step, known, base in self._steps(is_own=is_own):
            facts, given = facts_of(step.uses), step.params.data
            text = _known_path(given.get(facts.output), known) if facts.output and given else None
            if text is not None and not text.startswith(SHOWN_LATER) and "\0" not in text:
                path = resolved(base / text)
                if facts.moves_to and (text.endswith(("/", os.sep)) or path.is_dir()):
                    path /= SHOWN_LATER  # a folder gets the file under its own name
                yield WrittenPlace(step, text, path, facts.output)

    def changed_files(self) -> Iterator[WrittenPlace]:
        """Yield what this pipeline's own steps write, move or remove, as far as it is known."""
        yield from self.written_files(is_own=True)
        for step, known, base in self._steps(is_own=True):
            given, facts = step.params.data, facts_of(step.uses)
            if facts.takes_file(given):
                text = _known_path(given.get(facts.takes_away), known)
                if text is not None and SHOWN_LATER not in text and "\0" not in text:
                    path = resolved(base / text)
                    yield WrittenPlace(step, text, path, facts.takes_away, is_new=False)

    def check(self, step: StepNode, params_type: type[Params], checks: FaultCollector) -> None:
        """Check which paths of a step lead outside, or cannot be what they are for."""
        are_folders_known = all(  # no caller opens another folder, or file, for this pipeline
            declared.type not in FOLDER_TYPES or self._known.get(name) is not None
            for name, declared in self._pipeline.inputs.items()
        )
        for name in params_type.paths:
            written = step.params.data.get(name)
            for part in written if isinstance(written, list) else (written,):
                text, found = self.text_of(part), None
                if text is not None and are_folders_known and self._leads_outside(text):
                    outside = OutsideRoots(text, self.roots.allowed)
                    found = outside.reason, outside.remedy
                elif text is not None and name == params_type.paths[0]:
                    found = params_type.path_fault(text, step.params.data)
                if found is not None:
                    checks.add((*step.at, "with", name), *found)

    def _leads_outside(self, text: str) -> bool:
        """Return whether a path leads outside for each item, where its beginning is known."""
        head, unknown, tail = text.partition(SHOWN_LATER)
        try:
            if not unknown:
                self.roots.resolve(text)
                return False
        except OutsideRoots:
            return True
        except (OSError, ValueError, RuntimeError):
            return False  # no possible path: a run says so
        known = resolved(self.roots.base / f"{head}{SHOWN_LATER}").parent
        is_known = head != "" and ".." not in tail and "\0" not in text
        return is_known and not any(
            known.is_relative_to(root) or root.is_relative_to(known) for root in self.roots.allowed
        )

    def _steps(self, *, is_own: bool = False) -> Iterator[tuple[StepNode, KnownInputs, Path]]:
        """Yield every step with what is known and where; `is_own`: without inner pipelines'."""
        for pipeline, known, base in self._pipelines[: 1 if is_own else None]:
            for node in pipeline.nodes():
                if isinstance(node, StepNode):
                    yield node, known, base


def _step_paths(step: StepNode) -> Iterator[tuple[str, bool]]:
    """Yield the paths in a step's parameters, and whether each names a file."""
    given, facts = step.params.data, facts_of(step.uses)
    roots = [given.get(facts.lists), *(tool.options.get("root") for tool in facts.tools(given))]
    for root in roots:
        if isinstance(root, str):
            yield root, False
    written = given.get(facts.output)
    if isinstance(written, str):
        yield written, not facts.fills


def _folder_of(text: str, *, is_file: bool) -> str | None:
    """Return the folder that a path leads to, as far as it is known; None: not another folder.

    >>> _folder_of("out/….md", is_file=True), _folder_of("out-…/…", is_file=True)
    ('out', '.')
    >>> _folder_of("….md", is_file=True), _folder_of("DIGEST.md", is_file=True)
    (None, None)
    """
    head, unknown, tail = text.partition(SHOWN_LATER)
    if "\0" in text:
        return None
    if not unknown and not is_file:
        return text
    folder = (head if unknown else text).rpartition("/")[0]
    if folder or head.startswith("/"):
        return folder or "/"
    last = tail.rpartition("/")[2]
    suffix = os.path.splitext(f"x{last}")[1].lower()  # noqa: PTH122 - the end of a template
    is_other_kind = SHOWN_LATER not in last and suffix not in ("", *YAML_SUFFIXES)
    if is_file and (not unknown or is_other_kind):
        return None
    return "."


def _known_path(text: object, known: KnownInputs) -> str | None:
    """Render what depends on the inputs alone; `…` in place of the rest.

    >>> _known_path("{{ inputs.out }}/{{ doc.relpath }}.md", KnownInputs({"out": "sums"}))
    'sums/….md'
    """
    if not isinstance(text, str):
        return None
    head, *statements = _STATEMENT.split(text, maxsplit=1)
    path = ""
    for piece in EXPRESSION.split(head):
        value = known.value_of(piece) if piece.startswith("{{") else piece
        path += value if isinstance(value, str) else SHOWN_LATER
    return path + (SHOWN_LATER if statements else "")


def resolved(path: Path) -> Path:
    path = Path(os.path.normpath(path))
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path
