"""The folders that a pipeline watches, and the places where its steps write.

A watch that sees what the pipeline's own steps write would start it again and again.

Output paths are known as far as they depend on nothing but the inputs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.pipelines.errors import Fault
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline, StepNode
from paddock.steps.base import OutsideRoots, Params, Roots
from paddock.steps.files.globs import BadPattern, Globs
from paddock.steps.registry import facts_of

from .protected_files import YAML_SUFFIXES

if TYPE_CHECKING:
    from paddock.pipelines.triggers import WatchKeys

PROCESSING = "processing"
SHOWN_LATER = "…"
"""In a path: what only a run shows."""
_WILD = re.compile(r"[*?]+|\[[^]]*\]")
_BRACES = re.compile(r"\{([^{},]*)[^{}]*\}")
_EXPRESSION = re.compile(r"(\{\{.*?\}\})", re.DOTALL)
_STATEMENT = re.compile(r"\{[%#]")


@dataclass(frozen=True, slots=True)
class BoundWatch:
    """One entry of `on.watch` with its folder."""

    name: str
    """Its identity in the ledger: the pipeline's file, and the root as the ledger writes paths."""
    root: Path
    """Absolute, with symlinks resolved; need not be there."""
    keys: WatchKeys
    own: tuple[Path, ...] = ()
    """Files of the pipeline's own that are known beforehand."""
    path: Path = Path()
    """The root as it is written, absolute: a link in it may be changed."""


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


class WatchBinder:
    """The watches of one pipeline; what is wrong with them stands in `faults`."""

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any],
        roots: Roots,
        within: Iterable[tuple[Pipeline, Mapping[str, Any], Path]] = (),
    ) -> None:
        """`within` are the pipelines that steps run, with their inputs and folders."""
        self._pipeline = pipeline
        self._roots = roots
        self._pipelines: list[tuple[Pipeline, Mapping[str, Any], Path]] = []
        """This one and those within it, each with what is known of its inputs, and its folder."""
        for plan, given, base in ((pipeline, inputs, roots.base), *within):
            known = {name: value for name, value in given.items() if value is not None}
            self._pipelines.append((plan, {"inputs": known}, base))
        self._scope = self._pipelines[0][1]
        self.faults: list[Fault] = []

    def bound(self) -> tuple[BoundWatch, ...]:
        """Return every watch whose folder can be told; without the inputs that may be none."""
        found: dict[Path, BoundWatch] = {}
        for index, keys in enumerate(self._pipeline.on.watch if self._pipeline.on else ()):
            at = ("on", "watch", index)
            watch = self._watch(keys, at)
            if watch is None:
                continue
            self._check(watch, at)
            if watch.root in found:
                what = f"two watches are on the same folder '{keys.path}'."
                self._fault((*at, "path"), what, "Make one of them, with both globs in `include`.")
            found[watch.root] = watch
        return tuple(found.values())

    def folders(self) -> tuple[Path, ...]:
        """Return the folders where documents arrive or are written, resolved.

        These are watched folders, scanned ones, `dir` inputs, stores, and folders that files are
        written to. The pipeline's own folder is among them where documents arrive in it. What lies
        outside the folders that it may touch is none: no step may read or write there.
        """
        found: dict[Path, None] = {}
        for text, base, is_file in self._places():
            place = _folder_of(text, is_file=is_file)
            if place is not None:
                named = Path(os.path.normpath(base / place))
                folder = _resolved(named)
                tops = (base, *self._roots.allowed)
                if any(path.is_relative_to(top) for path in (named, folder) for top in tops):
                    found[folder] = None
        return tuple(found)

    def _places(self) -> Iterator[tuple[str, Path, bool]]:
        """Yield texts of paths with the folder they start from, and whether they name a file."""
        base = self._roots.base
        for keys in self._pipeline.on.watch if self._pipeline.on else ():
            yield _known_path(keys.path, self._scope) or SHOWN_LATER, base, False
        for pipeline, scope, base in self._pipelines:
            for name, declared in pipeline.inputs.items():
                value = scope["inputs"].get(name)
                if declared.type == "dir" and isinstance(value, str):
                    yield value, base, False
        for step, scope, base in self._steps():
            for text, is_file in _step_paths(step):
                yield _known_path(text, scope) or SHOWN_LATER, base, is_file

    def _watch(self, keys: WatchKeys, at: Place) -> BoundWatch | None:
        text = _known_path(keys.path, self._scope)
        if text is None or SHOWN_LATER in text:
            return None  # an input without a value yet
        try:
            root = self._roots.resolve(text)
        except OutsideRoots as error:
            self._fault((*at, "path"), error.reason, error.remedy)
            return None
        except (OSError, ValueError, RuntimeError):
            self._fault((*at, "path"), f"'{text}' is not a possible path.", "Name another one.")
            return None
        own = tuple(place.path for place in self._written() if SHOWN_LATER not in place.text)
        base = self._roots.base  # a folder that is moved as a whole stays the same watch
        stored = root.relative_to(base).as_posix() if root.is_relative_to(base) else str(root)
        name = f"{Path(self._pipeline.document.file).name}:{stored}"
        return BoundWatch(name, root, keys, own, base / text)

    # --- what cannot go well

    def _check(self, watch: BoundWatch, at: Place) -> None:
        keys = watch.keys
        for name in ("include", "exclude"):
            try:
                Globs.of(getattr(keys, name))
            except BadPattern as error:
                self._fault((*at, name), f"{error}.", "Write it as in .gitignore.")
                return
        for written in self._written():
            if watch_sees(keys, watch.root, written.path):
                folder = written.path.relative_to(watch.root).parent.as_posix()
                remedy = "Write into another folder, or leave these files out with `exclude`."
                if folder != "." and SHOWN_LATER not in folder:
                    remedy = f'Write into another folder, or set `exclude: ["/{folder}/"]`.'
                what = (
                    f"the watch on '{keys.path}' would see what step '{written.step.id}' writes, "
                    f"'{written.text}', and start the pipeline again and again."
                )
                self._fault((*at, "path"), what, remedy)
                break
        if keys.deletes.prune:
            for step in self._moves():
                what = (
                    f"step '{step.id}' takes documents out of their folder, so `deletes: prune` "
                    f"would remove all that was made of them."
                )
                remedy = "Remove one of the two, or copy with `mode: copy`."
                self._fault((*at, "deletes"), what, remedy)
        if keys.claim == "move":
            self._check_hot(watch, at)

    def _moves(self) -> Iterator[StepNode]:
        """Yield the steps that take an item of a block away: its own path is a loop variable's."""
        for node in self._pipeline.nodes():
            if isinstance(node, StepNode) and (name := facts_of(node.uses).takes_away):
                read = node.params.places().get((name,), frozenset())
                is_items = any(path[0] not in ("inputs", "steps", "secrets") for path in read)
                if is_items and node.params.data.get("mode") != "copy":
                    yield node

    def _check_hot(self, watch: BoundWatch, at: Place) -> None:
        if watch.keys.deletes.prune:
            what = (
                "with `claim: move` documents leave the folder when they are done, so "
                "`deletes: prune` would remove all that was made of them."
            )
            self._fault((*at, "deletes"), what, "Remove one of the two.")
        folder = watch.root / PROCESSING
        scanned: list[str | None] = []
        for step, scope, base in self._steps():
            if name := facts_of(step.uses).lists:
                text = _known_path(step.params.data.get(name), scope)
                scanned.append(text if text is None or SHOWN_LATER in text else str(base / text))
        if any(text is None or SHOWN_LATER in text for text in scanned):
            return  # only a run shows which folder it is
        if not any(self._is_around(text, folder) for text in scanned if text is not None):
            place = f"{watch.keys.path.rstrip('/')}/{PROCESSING}"
            what = (
                f"with `claim: move` documents are worked on in '{place}', and no `files.scan` "
                f"lists that folder."
            )
            self._fault((*at, "claim"), what, f'Scan it: `root: "{place}"`.')

    def _is_around(self, text: str, folder: Path) -> bool:
        try:
            return self._roots.resolve(text) == folder
        except (OutsideRoots, OSError, ValueError, RuntimeError):
            return False

    def _steps(self, *, is_own: bool = False) -> Iterator[tuple[StepNode, Mapping[str, Any], Path]]:
        """Yield every step with what is known and where; `is_own`: without inner pipelines'."""
        for pipeline, scope, base in self._pipelines[: 1 if is_own else None]:
            for node in pipeline.nodes():
                if isinstance(node, StepNode):
                    yield node, scope, base

    def written(self) -> Iterator[WrittenPlace]:
        """Yield what this pipeline's own steps write, move or remove, as far as it is known."""
        yield from self._written(is_own=True)
        for step, scope, base in self._steps(is_own=True):
            given, name = step.params.data, facts_of(step.uses).takes_away
            if name and given.get("mode") != "copy":
                text = _known_path(given.get(name), scope)
                if text is not None and SHOWN_LATER not in text and "\0" not in text:
                    path = _resolved(Path(os.path.normpath(base / text)))
                    yield WrittenPlace(step, text, path, name, is_new=False)

    def path_faults(
        self, steps: Iterable[tuple[StepNode, type[Params]]], *, are_folders_known: bool
    ) -> Iterator[Fault]:
        """Yield which paths lead outside, or cannot be what they are for, as far as is known.

        `are_folders_known`: no folder besides those of the roots will be open in a run.
        """
        for step, table in steps:
            for name in table.paths:
                written = step.params.data.get(name)
                for part in written if isinstance(written, list) else (written,):
                    text, found = _known_path(part, self._scope), None
                    if text is not None and are_folders_known and self._leads_outside(text):
                        outside = OutsideRoots(text, self._roots.allowed)
                        found = outside.reason, outside.remedy
                    elif text is not None and name == table.paths[0]:
                        found = table.path_fault(text, step.params.data)
                    if found is not None:
                        yield Fault(*found, self._pipeline.mark((*step.at, "with", name)))

    def _leads_outside(self, text: str) -> bool:
        """Return whether a path leads outside for each item, where its beginning is known."""
        head, unknown, tail = text.partition(SHOWN_LATER)
        try:
            if not unknown:
                self._roots.resolve(text)
                return False
        except OutsideRoots:
            return True
        except (OSError, ValueError, RuntimeError):
            return False  # no possible path: a run says so
        known = _resolved(Path(os.path.normpath(self._roots.base / f"{head}{SHOWN_LATER}"))).parent
        is_known = head != "" and ".." not in tail and "\0" not in text
        return is_known and not any(
            known.is_relative_to(root) or root.is_relative_to(known) for root in self._roots.allowed
        )

    def _written(self, *, is_own: bool = False) -> Iterator[WrittenPlace]:
        """Yield where steps write, as far as it is known at least by its beginning."""
        for step, scope, base in self._steps(is_own=is_own):
            facts, given = facts_of(step.uses), step.params.data
            text = _known_path(given.get(facts.output), scope) if facts.output and given else None
            if text is not None and not text.startswith(SHOWN_LATER) and "\0" not in text:
                path = _resolved(Path(os.path.normpath(base / text)))
                if facts.moves_to and (text.endswith(("/", os.sep)) or path.is_dir()):
                    path /= SHOWN_LATER  # a folder gets the file under its own name
                yield WrittenPlace(step, text, path, facts.output)

    def _fault(self, at: Place, message: str, remedy: str) -> None:
        self.faults.append(Fault(message, remedy, self._pipeline.mark(at)))


def _step_paths(step: StepNode) -> Iterator[tuple[str, bool]]:
    """Yield the paths in a step's parameters, and whether each names a file."""
    given, facts = step.params.data, facts_of(step.uses)
    roots = [given.get(facts.lists), *(tool.options.get("root") for tool in facts.tools(given))]
    yield from ((root, False) for root in roots if isinstance(root, str))
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


def _known_path(text: object, scope: Mapping[str, Any]) -> str | None:
    """Render what depends on the inputs alone; `…` in place of the rest.

    >>> _known_path("{{ inputs.out }}/{{ doc.relpath }}.md", {"inputs": {"out": "sums"}})
    'sums/….md'
    """
    if not isinstance(text, str):
        return None
    head, *tail = _STATEMENT.split(text, maxsplit=1)
    pieces = (_known_piece(piece, scope) for piece in _EXPRESSION.split(head))
    return "".join(pieces) + (SHOWN_LATER if tail else "")


def _known_piece(text: str, scope: Mapping[str, Any]) -> str:
    if not text.startswith("{{"):
        return text
    try:
        value = Value.of(text)
        if any(path[0] != "inputs" for path in value.references):
            return SHOWN_LATER
        rendered = value.render(scope)
    except ExpressionError:
        return SHOWN_LATER  # told where it stands, or an input without a value
    return rendered if isinstance(rendered, str) else SHOWN_LATER


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def watch_sees(keys: WatchKeys, root: Path, path: Path) -> bool:
    """Return whether a watch on `root` would take a file for a document."""
    if not path.is_relative_to(root) or path == root:
        return False
    relpath = path.relative_to(root).as_posix()
    parts = relpath.split("/")
    if any(part.startswith(".") for part in parts):
        return False
    include, exclude = Globs.of(keys.include), Globs.of(keys.exclude)
    folders = ["/".join(parts[:end]) for end in range(1, len(parts))]
    if any(map(exclude.names_folder, folders)) or any(map(include.refuses_folder, folders)):
        return False
    is_named = any(map(include.names_folder, folders))
    return any(
        include.names_file(path, in_named_folder=is_named) and not exclude.names_file(path)
        for path in _possible_names(relpath, keys.include)
    )


def _possible_names(relpath: str, patterns: Sequence[str]) -> list[str]:
    """Return the path; of one whose suffix only a run shows, also with names that are asked for.

    >>> _possible_names("done/…", ["new/*.{md,txt}", "!*.bak"])
    ['done/…', 'done/….md']
    """
    folder, slash, name = relpath.rpartition("/")
    if not name.endswith(SHOWN_LATER):
        return [relpath]
    lasts = (glob.rstrip("/").rpartition("/")[2] for glob in patterns if not glob.startswith("!"))
    names = [_WILD.sub(SHOWN_LATER, _BRACES.sub(r"\1", last)) for last in lasts]
    return list(dict.fromkeys((relpath, *(f"{folder}{slash}{name}" for name in names))))
