"""Files that no step may write: Paddock's state and settings, the pipeline, the code that runs.

A pipeline consists of its file, its sub-pipelines, its templates and schemas, the Python files of
its functions with what they import, and the programs and scripts that its commands name. A step
that wrote one of these, or a YAML file where `paddock up` looks for pipelines, would turn the text
of a document or a model into what runs next. YAML (and Python, where there are functions) is
written only into folders that the paths of steps name, which `up` leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.distribution import SETTINGS_FILE, STATE_FOLDER
from paddock.engine.system.records import Struct
from paddock.pipelines.model import Pipeline, step_nodes
from paddock.pipelines.validation import FaultCollector
from paddock.steps.effects import MovedDocument
from paddock.steps.param_types import PipelineFile
from paddock.steps.registry import facts_of
from paddock.steps.tools.code_digests import file_content, python_modules_of

from ..known_paths import YAML_SUFFIXES, KnownPaths
from .reached import ReachedCode, reached_by

PYTHON_SUFFIXES = (".py", ".pyc", ".pyd", ".so", ".pth")
_SCRIPTS = (".py", ".sh", ".bash", ".zsh", ".js", ".mjs", ".ts", ".rb", ".pl", ".php", ".lua", ".r",
            ".awk", ".jq", ".sql", ".ps1", ".bat", ".cmd", ".jar")  # fmt: skip
"""Data that a command's words name may be written."""


class WriteRefusal(Struct, frozen=True):
    why: str
    remedy: str = "Write to another path."


class ProtectedFiles(Struct, frozen=True, dict=True):
    """The files of a pipeline and of those that it runs; all paths are resolved."""

    bases: frozenset[Path]
    parts: frozenset[Path]
    folders: tuple[Path, ...] = ()
    """Folders that the paths of steps name (`BoundPlan.folders`)."""
    code_folders: frozenset[Path] = frozenset()
    """Where functions import from."""

    @classmethod
    def of(
        cls, pipelines: Iterable[tuple[Pipeline, Path]], folders: tuple[Path, ...] = ()
    ) -> ProtectedFiles:
        bases: set[Path] = set()
        parts: set[Path] = set()
        code: set[Path] = set()
        for pipeline, base in pipelines:
            base = base.resolve()
            bases.add(base)
            parts.add(base / Path(pipeline.document.file).name)
            parts |= set(_named_files(pipeline, base))
            functions = [r.file for r in reached_by(pipeline) if isinstance(r, ReachedCode)]
            for file in _files(functions, base):
                parts |= set(python_modules_of(file))
                code.add(file.parent)
        return cls(frozenset(bases), frozenset(parts), folders, frozenset(code))

    def refusal(self, path: Path, *, is_new: bool = True) -> WriteRefusal | None:
        """Return why a path may not be written, moved or removed; None: it may.

        `path` is absolute, with symbolic links resolved; `is_new`: something is there afterwards.
        """
        folded = str(path).casefold()
        if STATE_FOLDER in folded:
            base = next((folder for folder in self.bases if path.is_relative_to(folder)), None)
            names = path.parts if base is None else path.relative_to(base).parts
            if any(name.casefold() == STATE_FOLDER for name in names):
                return WriteRefusal("lies in '.paddock', where Paddock keeps its own state")
        name = folded.rpartition(os.sep)[2]
        if name == SETTINGS_FILE:
            return WriteRefusal("is a settings file of Paddock")
        identity = None if folded in self.folded else files.identity_of_path(path)
        if folded in self.folded or (
            identity is not None and identity in map(files.identity_of_path, self.parts)
        ):  # under this name or another
            return WriteRefusal("is a part of the pipeline itself")
        stem, dot, last = name.rpartition(".")  # `Path` takes as long as all else for 10,000 paths
        suffix = dot + last if stem and is_new else ""
        if suffix not in (*YAML_SUFFIXES, *PYTHON_SUFFIXES) or self._is_in_named_folder(path):
            return None
        if suffix in YAML_SUFFIXES:
            remedy = f"Write YAML into a folder that the step's path names, as in 'out/x{suffix}'."
            return WriteRefusal("could be taken for a pipeline by `paddock up`", remedy)
        if any(path.is_relative_to(top) for top in self.code_folders):
            remedy = f"Write it into a folder that the step's path names, as in 'out/x{suffix}'."
            return WriteRefusal("lies where the pipeline's functions import from", remedy)
        return None

    @cached_property
    def folded(self) -> frozenset[str]:
        """The paths of the parts, to be compared with case-folded ones."""
        return frozenset(str(part).casefold() for part in self.parts)

    def _is_in_named_folder(self, path: Path) -> bool:
        if path.parent in self.code_folders or (path.parent / STATE_FOLDER).is_dir():
            return False
        return any(
            path.is_relative_to(top) and not any(base.is_relative_to(top) for base in self.bases)
            for top in self.folders
        )


def check_writes(
    pipeline: Pipeline,
    base: Path,
    paths: KnownPaths,
    folders: tuple[Path, ...],
    checks: FaultCollector,
) -> None:
    """Check that no step of the pipeline itself writes, moves or removes a protected file."""
    protected = ProtectedFiles.of([(pipeline, base)], folders)
    for out in paths.changed():
        is_taken = issubclass(out.use, MovedDocument)
        refusal = protected.refusal(out.path, is_new=not is_taken)
        if refusal is not None:
            act = f"take '{out.text}' away" if is_taken else f"write '{out.text}'"
            what = f"step '{out.step.id}' may not {act}: it {refusal.why}"
            checks.add((*out.step.at, "with", out.param), what, refusal.remedy)


def _named_files(pipeline: Pipeline, base: Path) -> Iterator[Path]:
    for step in step_nodes(pipeline):
        data, facts = step.params.data, facts_of(step.uses)
        schema = step.reply.written if step.reply is not None else None
        # What stands in place of a text: `{file: prompts/x.md}`
        tables = [value for value in (*data.values(), schema) if isinstance(value, Mapping)]
        yield from _files(
            [*(table.get("file") for table in tables), data.get(facts.param(PipelineFile))], base
        )
    written = pipeline.document.data
    servers = written.get("mcpServers") if isinstance(written, Mapping) else None
    named = servers.get("file") or servers if isinstance(servers, Mapping) else servers
    yield from _files([named, *(keys.file for keys in pipeline.secrets.values())], base)
    for reached in reached_by(pipeline):
        if not isinstance(reached, ReachedCode) and reached.program is not None:
            yield from filter(is_script, reached.program.files(base))


def is_script(file: Path) -> bool:
    is_program = file_content(file, 4).startswith((b"#!", b"\x7fELF"))
    return is_program or file.suffix.lower() in _SCRIPTS


def _files(texts: Iterable[Any], base: Path) -> Iterator[Path]:
    for text in texts:
        file = files.existing_file(base, text) if isinstance(text, str) and text else None
        if file is not None:
            yield file
