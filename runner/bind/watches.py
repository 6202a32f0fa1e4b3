"""The folders that a pipeline watches, and their faults.

A watch that sees what the pipeline's own steps write would start it again and again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from paddock.engine.system.records import Struct
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline, step_nodes
from paddock.pipelines.triggers import WatchKeys
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import OutsideRoots
from paddock.steps.effects import MovedDocument
from paddock.steps.files.globs import BadPattern, Globs
from paddock.steps.registry import facts_of

from .inputs import LATER_PART
from .known_paths import KnownPaths

PROCESSING = "processing"
_WILD = re.compile(r"[*?]+|\[[^]]*\]")
_BRACES = re.compile(r"\{([^{},]*)[^{}]*\}")


class BoundWatch(Struct, frozen=True):
    name: str
    """Its identity in the ledger: the pipeline's file, and the root as the ledger writes paths."""
    root: Path
    """Absolute, with symlinks resolved; need not be there."""
    keys: WatchKeys
    own: tuple[Path, ...] = ()
    """Files of the pipeline's own that are known beforehand."""
    path: Path = Path()
    """The root as it is written, absolute: a link in it may be changed."""


class WatchBinder:
    def __init__(self, pipeline: Pipeline, paths: KnownPaths, checks: FaultCollector) -> None:
        self._checks = checks
        self._pipeline = pipeline
        self._paths = paths

    def bind(self) -> tuple[BoundWatch, ...]:
        """Return every watch whose folder can be told; without the inputs that may be none."""
        watches: dict[Path, BoundWatch] = {}
        for index, keys in enumerate(self._pipeline.on.watch if self._pipeline.on else ()):
            at = ("on", "watch", index)
            watch = self._watch(keys, at)
            if watch is None:
                continue
            self._check(watch, at)
            if watch.root in watches:
                what = f"two watches are on the same folder '{keys.path}'"
                remedy = "Make one of them, with both globs in `include`."
                self._checks.add((*at, "path"), what, remedy)
            watches[watch.root] = watch
        return tuple(watches.values())

    def _watch(self, keys: WatchKeys, at: Place) -> BoundWatch | None:
        text, roots = self._paths.known.text_of(keys.path), self._paths.roots
        if LATER_PART in text:
            return None  # an input without a value yet
        try:
            root = roots.resolve(text)
        except OutsideRoots as error:
            self._checks.add((*at, "path"), error.reason, error.remedy)
            return None
        except (OSError, ValueError, RuntimeError):
            what = f"'{text}' is not a possible path"
            self._checks.add((*at, "path"), what, "Name another one.")
            return None
        own = tuple(out.path for out in self._paths.written() if LATER_PART not in out.text)
        base = roots.base  # a folder that is moved as a whole stays the same watch
        stored = root.relative_to(base).as_posix() if root.is_relative_to(base) else str(root)
        name = f"{Path(self._pipeline.document.file).name}:{stored}"
        return BoundWatch(name, root, keys, own, base / text)

    def _check(self, watch: BoundWatch, at: Place) -> None:
        keys = watch.keys
        for name in ("include", "exclude"):
            try:
                Globs.of(getattr(keys, name))
            except BadPattern as error:
                self._checks.add((*at, name), str(error), "Write it as in .gitignore.")
                return
        for out in self._paths.written():
            if watch_sees(keys, watch.root, out.path):
                folder = out.path.relative_to(watch.root).parent.as_posix()
                remedy = "Write into another folder, or leave these files out with `exclude`."
                if folder != "." and LATER_PART not in folder:
                    remedy = f'Write into another folder, or set `exclude: ["/{folder}/"]`.'
                what = (
                    f"the watch on '{keys.path}' would see what step '{out.step.id}' writes, "
                    f"'{out.text}', and start the pipeline again and again"
                )
                self._checks.add((*at, "path"), what, remedy)
                break
        if keys.deletes.prune:
            for step in step_nodes(self._pipeline):
                facts = facts_of(step.uses)
                made = step.params.expressions.get((facts.param(MovedDocument),))
                taken = made.references if made and MovedDocument.is_done(step.params.data) else ()
                # It takes an item of a block away: the path is a loop variable's
                if any(path[0] not in ("inputs", "steps", "secrets") for path in taken):
                    what = (
                        f"step '{step.id}' takes documents out of their folder, so `deletes: "
                        f"prune` would remove all that was made of them"
                    )
                    remedy = "Remove one of the two, or copy with `mode: copy`."
                    self._checks.add((*at, "deletes"), what, remedy)
        if keys.claim == "move":
            self._check_hot_folder(watch, at)

    def _check_hot_folder(self, watch: BoundWatch, at: Place) -> None:
        if watch.keys.deletes.prune:
            what = (
                "with `claim: move` documents leave the folder when they are done, so "
                "`deletes: prune` would remove all that was made of them"
            )
            self._checks.add((*at, "deletes"), what, "Remove one of the two.")
        scanned = [*self._paths.scanned()]
        if any(LATER_PART in named.text for named in scanned):
            return  # only a run shows which folder it is
        for named in scanned:
            try:
                folder = self._paths.roots.resolve(str(named.base / named.text))
                if folder == watch.root / PROCESSING:
                    return
            except (OutsideRoots, OSError, ValueError, RuntimeError):
                continue
        place = f"{watch.keys.path.rstrip('/')}/{PROCESSING}"
        what = (
            f"with `claim: move` documents are worked on in '{place}', and no `files.scan` lists "
        )
        self._checks.add((*at, "claim"), f"{what}that folder", f'Scan it: `root: "{place}"`.')


def watch_sees(keys: WatchKeys, root: Path, path: Path) -> bool:
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
        include.names_file(name, in_named_folder=is_named) and not exclude.names_file(name)
        for name in _possible_names(relpath, keys.include)
    )


def _possible_names(relpath: str, patterns: Sequence[str]) -> list[str]:
    """Return the path; of one whose suffix only a run shows, also with names that are asked for.

    >>> _possible_names("done/…", ["new/*.{md,txt}", "!*.bak"])
    ['done/…', 'done/….md']
    """
    folder, slash, name = relpath.rpartition("/")
    if not name.endswith(LATER_PART):
        return [relpath]
    lasts = (glob.rstrip("/").rpartition("/")[2] for glob in patterns if not glob.startswith("!"))
    names = [_WILD.sub(LATER_PART, _BRACES.sub(r"\1", last)) for last in lasts]
    return list(dict.fromkeys((relpath, *(f"{folder}{slash}{name}" for name in names))))
