"""What a machine sees of a run that several do together; each must see the same.

It is compared by the digests of all that the pipeline reads besides documents, and by a nonce: a
hidden file that one machine writes into each folder, and that the others must find there by their
own paths. An unmounted share, a copy of it or another folder under the same path has no such file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.distribution import own_version
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.plan_walks import all_plans, all_steps
from paddock.runner.bind.trust.protected_files import ProtectedFiles
from paddock.runner.folders.folder_identity import folder_identity_at, mount_of, mounted
from paddock.runner.ledger.entries import LedgerError, stored_path
from paddock.steps.tools.code_digests import file_content

from ..traces.node_parts import hashable_value
from ..traces.parts import ordered_digest

NONCE_PREFIX = ".paddock-share-"
"""Hidden: no scan and no watch takes it."""
MOST_FOLDERS, N_SAMPLES = 200, 16

SAME_CHANGE_S = 0.05
"""File systems keep times of different precision; not all show the inodes of the server's disk."""

FoldersSeen = Mapping[str, Sequence[Sequence[Any]]]
"""A folder, as the ledger stores paths → files of which at least one must be there, each with its
inode and the time of its last change."""


class OtherView(LedgerError):
    """This machine sees another pipeline, inputs or folder than those that work with it."""


@dataclass(frozen=True, slots=True)
class MachineView:
    """What one machine sees."""

    base: Path = Path()
    """The pipeline's folder."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """By the name of a file, an input, a step's model or the version of Paddock: digest or name."""
    folders: tuple[Path, ...] = ()
    """The resolved folders in which documents are read or written."""

    @classmethod
    def of(cls, bound: BoundPlan) -> MachineView:
        """Return this machine's view of a pipeline with its inputs. Blocks."""
        base, plans = bound.roots.base.resolve(), [*all_plans(bound)]
        digests = {"Paddock's version": own_version()}
        for file in ProtectedFiles.of((plan.pipeline, plan.roots.base) for plan in plans).parts:
            content = hashlib.sha256(file_content(file)).hexdigest()[:16]
            digests[f"'{stored_path(file, base)}'"] = content
        for plan in plans:
            document = plan.pipeline.document
            # As it was read, which may have been earlier.
            name = f"'{stored_path((plan.roots.base / Path(document.file).name).resolve(), base)}'"
            digests[name] = ordered_digest(document.data)
            for keys in plan.pipeline.secrets.values():  # each machine has its own
                secret = files.existing_file(plan.roots.base, keys.file or "")
                digests.pop(f"'{stored_path(secret, base)}'" if secret else "", None)
        for name in bound.inputs.keys() - bound.secret_inputs:
            value = bound.inputs[name]
            if name in bound.folder_inputs and value is not None:
                value = stored_path(Path(value), base)
            digests[f"input '{name}'"] = ordered_digest(hashable_value(value))
        for step in all_steps(bound.nodes):
            if step.models:
                digests[f"model of '{step.id}'"] = ", ".join(spec.ref for spec in step.models)
        return cls(base, digests, tuple(islice(dict.fromkeys(_folders(bound)), MOST_FOLDERS)))

    def write_nonces(self, nonce: str) -> FoldersSeen:
        """Write a nonce into each folder; return what another machine must see there. Blocks.

        In a folder that cannot be written, some files that are in it now must be seen.
        """
        seen: dict[str, list[Sequence[Any]]] = {}
        for folder in self.folders:
            name = _nonce_name(nonce, stored := stored_path(folder, self.base))
            files_there = seen[stored] = []
            try:
                (folder / name).touch()
                files_there.append((name, *_file_identity(folder / name)))
            except OSError:
                with suppress(OSError):
                    names = sorted(entry.name for entry in folder.iterdir())
                    for name in [name for name in names if not _is_hidden(name)][:N_SAMPLES]:
                        files_there.append((name, *_file_identity(folder / name)))
        return seen

    def remove_nonces(self, nonce: str) -> None:
        """Remove what `write_nonces` wrote. Blocks."""
        for folder in self.folders:
            with suppress(OSError):
                (folder / _nonce_name(nonce, stored_path(folder, self.base))).unlink()

    def differences(self, theirs: Mapping[str, str]) -> str:
        """Return what another machine sees otherwise; empty: nothing."""
        if not theirs:
            return "its Paddock is older, and does not say what it sees"
        return "; ".join(
            f"{name} is {theirs.get(name, 'missing')} there and "
            f"{self.digests.get(name, 'missing')} here"
            for name in {**theirs, **self.digests}
            if theirs.get(name) != self.digests.get(name)
        )

    def refuse_other(self, view: Mapping[str, Any], whose: str) -> None:
        """Refuse to work together with a machine of another view, as `as_json` wrote it. Blocks.

        Raises:
            OtherView: with what differs.
        """
        if words := self.differences(view.get("digests", {})):
            raise OtherView(
                f"this machine would mix two versions: {whose} sees it otherwise ({words}). "
                f"Give all machines the same, and run again; what is done stays done."
            )
        folders: FoldersSeen = view.get("folders", {})
        for stored in folders:
            if self._is_other_folder(stored, folders):
                raise OtherView(
                    f"the folder '{stored}' is another one on this machine than for {whose}, or "
                    f"nothing is mounted there. Mount the same at {self.base / stored}, and run "
                    f"again; what is done stays done."
                )

    def _is_other_folder(self, stored: str, theirs: FoldersSeen) -> bool:
        folder = self.base / stored
        for name, inode, changed_s in theirs[stored]:
            with suppress(OSError):
                inode_here, changed_here_s = _file_identity(folder / name)
                if inode_here == inode or abs(changed_here_s - changed_s) < SAME_CHANGE_S:
                    return False  # unlike a copy of it
        if theirs[stored]:
            return True
        # There was none, or nothing in it: it may have come since, but not by a mount.
        point = Path(mount_of(os.path.realpath(folder), mounted()).point)
        is_within = point.is_relative_to(self.base) and stored_path(point, self.base) not in theirs
        return folder.exists() and (is_within or point == folder)


def as_json(view: MachineView, folders: FoldersSeen) -> dict[str, Any]:
    """Return a view with its nonces, for other machines."""
    return {"digests": dict(view.digests), "folders": dict(folders)}


def _folders(bound: BoundPlan) -> Iterator[Path]:
    """Yield the folders that are read or written, and what is mounted below them."""
    yield bound.roots.base.resolve()
    given = [Path(path) for name, path in bound.folder_inputs.items() if bound.inputs[name]]
    for folder in (*bound.folders, *(path if path.is_dir() else path.parent for path in given)):
        yield folder.resolve()
        with suppress(OSError):
            below = folder_identity_at(folder).mounts
            yield from (folder.resolve() / at for at in sorted(below) if not _is_hidden(at))


def _file_identity(file: Path) -> tuple[str, float]:
    facts = file.lstat()
    return str(facts.st_ino), round(facts.st_ctime, 3)


def _is_hidden(relpath: str) -> bool:
    return any(part.startswith(".") for part in relpath.split("/"))


def _nonce_name(nonce: str, stored: str) -> str:
    return f"{NONCE_PREFIX}{hashlib.sha256(f'{nonce} {stored}'.encode()).hexdigest()[:32]}"
