"""The code of a pipeline: the files of its folder that its programs may load.

A program loads what it likes from where it is: a Makefile, a module, what `BASH_ENV` names. So all
files of the folder count, but for

1. Paddock's state, `.git`, and `__pycache__`, which Python does not use there,
2. folders within it that steps scan, watch, write or move into,
3. other pipelines with their documents and outputs, and folders within it that hold one.

With `code:` those that its patterns name count instead. A file below the folder that the words of a
program name counts in any case. What lies elsewhere is not looked at.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from paddock.engine.system.distribution import STATE_FOLDER
from paddock.engine.system.records import Struct, field
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.model import parse_pipeline
from paddock.pipelines.yaml_source import parse_yaml
from paddock.steps.base import Roots
from paddock.steps.files.globs import ALL_FILES, Globs
from paddock.steps.tools.code_digests import file_content, python_modules_of

from ..bound import BoundPlan
from ..inputs import KnownInputs
from ..known_paths import YAML_SUFFIXES, KnownPaths, resolved
from ..plan_walks import all_plans
from .reached import ReachedCode, ReachedNotification, reached_by

MOST_FILES, MOST_BYTES = 2_000, 64 * 2**20  # read and hashed in 0.3 s
_NOT_CODE = frozenset((STATE_FOLDER, ".git", "__pycache__"))
_STEPS = re.compile(rb"^steps\s*:", re.MULTILINE)


class CodeFile(Struct, frozen=True):
    sha256: str
    """Of a link: of its text, and of the file that it leads to within the folder."""
    changed: float
    """In seconds since 1970: the last change of content, name or mode."""


class PipelineCode(Struct, frozen=True):
    files: dict[Path, CodeFile] = field(default_factory=dict)
    rules: dict[tuple[Path, tuple[str, ...] | None], None] = field(default_factory=dict)
    """The folder of each pipeline that starts programs, with its `code:`."""
    left_out: set[Path] = field(default_factory=set)
    """Folders of documents and of other pipelines, and what these write."""


def code_of(starts: Sequence[BoundPlan], state_dir: Path) -> PipelineCode:
    """Return the code of a pipeline and of those that it runs, bound as its file starts it.

    Raises:
        PipelineError: a folder is too large.
    """
    plans = [plan for start in starts for plan in all_plans(start)]
    own = {_file_of(plan) for plan in plans}
    code = PipelineCode()
    n_bytes = 0
    no_code = {resolved(state_dir), *(folder for start in starts for folder in start.documents)}
    for plan in plans:
        base, globs = _file_of(plan).parent, plan.pipeline.code
        named = _named_files(plan, is_outer=any(plan is start for start in starts))
        if next(named, None) is None:
            continue
        files: Iterator[Path] = (path for path in named if path.is_relative_to(base))
        if (base, globs) not in code.rules:
            code.rules[base, globs] = None
            if globs is None:
                code.left_out.update(folder for folder in no_code if base in folder.parents)
            files = chain(files, _files_in(base, globs, own, code.left_out))
        for path in files:
            if path in own or path in code.files:
                continue
            with suppress(OSError):  # gone since
                facts = path.lstat()
                n_bytes += facts.st_size
                if len(code.files) == MOST_FILES or n_bytes > MOST_BYTES:
                    raise PipelineError.of(
                        f"its programs may load any file of '{base}', and that has more than "
                        f"{MOST_FILES:,} files or {MOST_BYTES // 2**20} MiB.",
                        "Name those that are code, as in `code: [scripts/**]`, or `code: []`.",
                        plan.pipeline.document.mark(()),
                    )
                code.files[path] = CodeFile(_digest(path, base), facts.st_ctime)
    return code


def _file_of(plan: BoundPlan) -> Path:
    return resolved(plan.roots.base) / Path(plan.pipeline.document.file).name


def _named_files(plan: BoundPlan, *, is_outer: bool) -> Iterator[Path]:
    """Yield the pipeline's file if it starts programs, and all that these name."""
    base, known = resolved(plan.roots.base), KnownInputs(plan.inputs, plan.later_inputs)
    for reached in reached_by(plan.pipeline):
        if isinstance(reached, ReachedCode):
            if reached.kind == "function":
                yield from (_file_of(plan), *python_modules_of(resolved(base / reached.file)))
        elif reached.program and (is_outer or not isinstance(reached, ReachedNotification)):
            yield from (_file_of(plan), *reached.program.files(base, known))


def _files_in(
    base: Path, patterns: Sequence[str] | None, own: set[Path], left_out: set[Path]
) -> Iterator[Path]:
    """Yield the files that count; add what is other pipelines' to what is left out."""
    globs, is_named = Globs.of([ALL_FILES] if patterns is None else patterns), {base: False}
    for at, folders, names in os.walk(base) if globs.rules else ():
        here, files = Path(at), [Path(at, name) for name in names]
        if patterns is None:
            others = {
                file: paths
                for file in files
                if file not in own and (paths := _paths_of_pipeline(file)) is not None
            }
            if others and here != base and own.isdisjoint(files):
                left_out.add(here)
                folders.clear()
                continue
            left_out.update(p for paths in others.values() for p in paths if base in p.parents)
            files = [file for file in files if file not in others and file not in left_out]
            folders[:] = [name for name in folders if here / name not in left_out]
        folders[:] = sorted({*folders} - _NOT_CODE)
        for folder in [here / name for name in folders]:
            name = folder.relative_to(base).as_posix()
            is_named[folder] = is_named[here] or globs.names_folder(name)
        files += [here / name for name in folders if (here / name).is_symlink()]  # not walked
        for file in files:
            name, is_in_named = file.relative_to(base).as_posix(), is_named[here]
            is_code = globs.names_file(name, in_named_folder=is_in_named)
            if is_code and file.name not in _NOT_CODE and (file.is_symlink() or file.is_file()):
                yield file


def _paths_of_pipeline(file: Path) -> list[Path] | None:
    """Return where a pipeline's documents arrive and are written, by its defaults.

    None: it is no pipeline, or has faults, so that a program may be what reads it.
    """
    if file.suffix not in YAML_SUFFIXES or not _STEPS.search(content := file_content(file)):
        return None
    try:
        pipeline = parse_pipeline(parse_yaml(content.decode(), str(file)))
    except (PipelineError, UnicodeDecodeError):
        return None
    known = KnownInputs({name: given.default for name, given in pipeline.inputs.items()})
    paths = KnownPaths(pipeline, known, Roots(file.parent, (file.parent,)))
    written = (named.path for named in paths.written() if named.is_whole)
    return None if pipeline.faults else [*paths.folders(with_inputs=False), *written]


def _digest(path: Path, base: Path) -> str:
    if not path.is_symlink():
        return hashlib.sha256(file_content(path)).hexdigest()
    content = file_content(path) if resolved(path).is_relative_to(base) else b""
    return hashlib.sha256(os.fsencode(path.readlink()) + b"\0" + content).hexdigest()
