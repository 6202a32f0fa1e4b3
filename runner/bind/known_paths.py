"""Paths of a pipeline as far as they are known before a run: its folders, where its steps write.

What depends on nothing but the inputs is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.records import Struct
from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.pipelines.model import Pipeline, StepNode, step_nodes
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import OutsideRoots, Params, Roots
from paddock.steps.effects import Destination, Effect, MovedDocument, MoveTarget
from paddock.steps.param_types import InputFolder, ParamType, PathParam
from paddock.steps.registry import facts_of

from .inputs import LATER_PART, KnownInputs

YAML_SUFFIXES = (".yaml", ".yml")
_PLACES = (InputFolder, Destination, MovedDocument)


class NamedPath(Struct, frozen=True, dict=True):
    """A path that a step names, as far as it is known; `…` stands for what is known later."""

    step: StepNode
    use: type[ParamType]
    param: str
    text: str
    base: Path
    """The folder of the step's pipeline, from which it leads."""
    is_own: bool
    """Whether the step is of the pipeline itself, and not of one that it runs."""

    @cached_property
    def path(self) -> Path:
        """The path itself; a folder gets a moved file under its own name."""
        path = resolved(self.base / self.text)
        is_moved = issubclass(self.use, MoveTarget)
        is_folder = is_moved and (self.text.endswith(("/", os.sep)) or path.is_dir())
        return path / LATER_PART if is_folder else path

    @property
    def is_begun(self) -> bool:
        return not self.text.startswith(LATER_PART) and "\0" not in self.text

    @property
    def is_whole(self) -> bool:
        return LATER_PART not in self.text and "\0" not in self.text


class KnownPaths:
    def __init__(
        self,
        pipeline: Pipeline,
        known: KnownInputs,
        roots: Roots,
        within: Iterable[tuple[Pipeline, KnownInputs, Path]] = (),
    ) -> None:
        """`within` are the pipelines that steps run, with their inputs and folders."""
        self.roots = roots
        self._pipeline = pipeline
        self.known = known
        self._dirs: list[tuple[str, Path]] = []
        """The `dir` inputs that are known, each with the folder from which it leads."""
        self._named: list[NamedPath] = []
        for inner, given, base in ((pipeline, known, roots.base), *within):
            for name, declared in inner.inputs.items():
                if declared.type == "dir" and isinstance(folder := given.get(name), str):
                    self._dirs.append((folder, base))
            self._named += _named_paths(inner, given, base, is_own=inner is pipeline)

    def folders(self, *, with_inputs: bool = True) -> tuple[Path, ...]:
        """Return the folders where documents arrive or are written, resolved.

        These are watched folders, scanned ones, `dir` inputs, stores, and folders that files are
        written to; a `dir` input may also be where a program runs. The pipeline's own folder is
        among them where documents arrive in it. What lies outside the folders that it may touch is
        none: no step may read or write there.
        """
        watches = self._pipeline.on.watch if self._pipeline.on else ()
        watched = (self.known.text_of(keys.path) or LATER_PART for keys in watches)
        texts = [(text, self.roots.base, False) for text in watched]
        texts += [(text, base, False) for text, base in self._dirs if with_inputs]
        stays = (path for path in self._named if not issubclass(path.use, MovedDocument))
        texts += [
            (named.text, named.base, issubclass(named.use, Effect) and named.use.makes_output)
            for named in stays
        ]
        folders: dict[Path, None] = {}
        for text, base, is_file in texts:
            place = _folder_of(text, is_file=is_file)
            if place is not None:
                named = Path(os.path.normpath(base / place))
                folder = resolved(named)
                tops = (base, *self.roots.allowed)
                if any(path.is_relative_to(top) for path in (named, folder) for top in tops):
                    folders[folder] = None
        return tuple(folders)

    def scanned(self) -> Iterator[NamedPath]:
        return (named for named in self._named if issubclass(named.use, InputFolder))

    def written(self) -> Iterator[NamedPath]:
        written = (named for named in self._named if issubclass(named.use, Destination))
        return (named for named in written if named.is_begun)

    def changed(self) -> Iterator[NamedPath]:
        """Yield what this pipeline's own steps write, move or remove, as far as it is known."""
        yield from (named for named in self.written() if named.is_own)
        taken = (named for named in self._named if issubclass(named.use, MovedDocument))
        yield from (named for named in taken if named.is_own and named.is_whole)

    def check(self, step: StepNode, params_type: type[Params], checks: FaultCollector) -> None:
        """Check which paths of a step lead outside, or cannot be what they are for."""
        are_folders_known = all(  # no caller opens another folder, or file, for this pipeline
            declared.type not in FOLDER_TYPES or self.known.get(name) is not None
            for name, declared in self._pipeline.inputs.items()
        )
        for name in (names := facts_of(step.uses).types.paths):
            written = step.params.data.get(name)
            for part in written if isinstance(written, list) else (written,):
                if not isinstance(part, str):
                    continue
                text = self.known.text_of(part)
                fault = None
                if are_folders_known and self._leads_outside(text):
                    outside = OutsideRoots(text, self.roots.allowed)
                    fault = outside.reason, outside.remedy
                elif name == names[0]:
                    fault = params_type.path_fault(text, step.params.data)
                if fault is not None:
                    checks.add((*step.at, "with", name), *fault)

    def _leads_outside(self, text: str) -> bool:
        """Return whether a path leads outside for each item, where its beginning is known."""
        head, later, tail = text.partition(LATER_PART)
        try:
            if not later:
                self.roots.resolve(text)
                return False
        except OutsideRoots:
            return True
        except (OSError, ValueError, RuntimeError):
            return False  # no possible path: a run says so
        known = resolved(self.roots.base / f"{head}{LATER_PART}").parent
        is_known = head != "" and ".." not in tail and "\0" not in text
        return is_known and not any(
            known.is_relative_to(root) or root.is_relative_to(known) for root in self.roots.allowed
        )


def _named_paths(
    pipeline: Pipeline, known: KnownInputs, base: Path, *, is_own: bool
) -> Iterator[NamedPath]:
    for step in step_nodes(pipeline):
        facts, given = facts_of(step.uses), step.params.data
        named: list[tuple[type[ParamType], str, Any]] = [
            (PathParam, "root", use.options.get("root")) for use in facts.tools(given)
        ]
        for param, use in facts.types.each:
            if issubclass(use, _PLACES) and use.is_path and use.is_done(given):
                named.append((use, param, given.get(param)))
        for use, param, written in named:
            if isinstance(written, str):
                yield NamedPath(step, use, param, known.text_of(written), base, is_own)


def _folder_of(text: str, *, is_file: bool) -> str | None:
    """Return the folder that a path leads to, as far as it is known; None: not another folder.

    >>> _folder_of("out/….md", is_file=True), _folder_of("out-…/…", is_file=True)
    ('out', '.')
    >>> _folder_of("….md", is_file=True), _folder_of("DIGEST.md", is_file=True)
    (None, None)
    """
    head, later, tail = text.partition(LATER_PART)
    if "\0" in text:
        return None
    if not later and not is_file:
        return text
    folder = (head if later else text).rpartition("/")[0]
    if folder or head.startswith("/"):
        return folder or "/"
    last = tail.rpartition("/")[2]
    suffix = os.path.splitext(f"x{last}")[1].lower()  # noqa: PTH122 - the end of a template
    is_other_kind = LATER_PART not in last and suffix not in ("", *YAML_SUFFIXES)
    if is_file and (not later or is_other_kind):
        return None
    return "."


def resolved(path: Path) -> Path:
    """Return a path without links and `..`, with links where they lead nowhere."""
    path = Path(os.path.normpath(path))
    return files.resolved(path) or path
