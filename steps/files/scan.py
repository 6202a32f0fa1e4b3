"""The step `files.scan`: list the files under a root."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from paddock.engine.system import no_links
from paddock.engine.system.files import sha256_of
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Params, RowsOutput, Step, StepError, Tools
from paddock.steps.extras import missing_bucket_library
from paddock.steps.facts import Facts
from paddock.steps.param_types import DocumentSource, InputFolder
from paddock.steps.paths import os_refusal, printable, resolve_path
from paddock.steps.sources.bucket import BucketParams
from paddock.steps.sources.json_list import JsonListParams
from paddock.steps.sources.mailbox import Account
from paddock.steps.sources.mirror import Mirror, SourceAway, SourceParams, SourceRefused
from paddock.steps.sources.place_states import PlaceStates

from .folder_walk import FolderWalk, FoundFile, listed_names
from .globs import Globs

SOURCES = ("mailbox", "listing", "bucket")
"""Parameters; at most one is given."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of UTC


class FilesScanParams(Params):
    root: Annotated[str, InputFolder] = Field(min_length=1, description="The folder.")
    mailbox: Annotated[Account | None, DocumentSource] = Field(
        default=None, description="An account: new mails are copied there."
    )
    listing: Annotated[JsonListParams | None, DocumentSource] = Field(
        default=None, description="A server's JSON list: documents are copied."
    )
    bucket: Annotated[BucketParams | None, DocumentSource] = Field(
        default=None, description="S3, SFTP or web folder that is copied there."
    )
    include: list[str] = Field(
        default=["**/*"], min_length=1, description="Patterns, as in .gitignore, with braces."
    )
    exclude: list[str] = Field(default=[], description="Patterns to leave out.")
    newest: int | None = Field(default=None, ge=1, description="Only so many, the latest changed.")
    max_bytes: SizeBytes = Field(
        default=4 * 1024**3, description="Leave out larger files, with a note."
    )
    follow_links: bool = Field(
        default=False, description="Follow symbolic links within the allowed folders."
    )
    outputs: bool = Field(default=False, description="Also list outputs, and what it moved.")

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        both = [f"`{name}`" for name in SOURCES if given.get(name) is not None]
        fault = (f"give one of {' and '.join(both)}.", "Scan each in a step of its own.")
        return (*super().faults(given), *([fault] if len(both) > 1 else ()))

    @property
    def source(self) -> SourceParams | None:
        return self.mailbox or self.listing or self.bucket

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not pattern.strip("!/ "):
                raise ValueError(f"'{pattern}' is not a pattern")
        Globs.of(value)
        return value


class ScannedFile(TypedDict):
    """One file. `relpath` has forward slashes; `modified` is ISO 8601 in UTC."""

    path: str
    relpath: str
    name: str
    stem: str
    suffix: str
    size: int
    modified: str
    sha256: str | None
    """None for an unreadable file: the step that reads it reports why."""


class FilesScanOutput(RowsOutput):
    """Outputs of `files.scan`: the files, sorted by `relpath`."""

    files: list[ScannedFile]


class FilesScan(Step[FilesScanParams, FilesScanOutput]):
    """List the files under a root, without hidden, temporary ones and outputs."""

    params = FilesScanParams
    output = FilesScanOutput
    is_pure = True
    facts = Facts(missing=missing_bucket_library)

    async def run(self, params: FilesScanParams, tools: Tools) -> FilesScanOutput:
        root = resolve_path(tools.files.roots, params.root)
        owned = frozenset() if params.outputs else tools.files.outputs.owned(root)
        if (source := params.source) is not None:
            await _fetch_documents(source, root, tools)
            if not root.is_dir():  # it is made with the first document
                return FilesScanOutput(files=[])
        scanned = await in_left_thread(scan_folder, params, root, tools.files.roots.allowed, owned)
        for note in scanned.notes:
            tools.log.note(f"{printable(params.root)}: {note}")
        known = [*scanned.left_out, *(file["path"] for file in scanned.files)]
        tools.log.scanned(known, scanned.not_taken)
        return FilesScanOutput.model_construct(files=scanned.files)


async def _fetch_documents(source: SourceParams, root: Path, tools: Tools) -> None:
    """Copy new documents into the folder.

    Raises:
        StepError: the server refuses. One that does not answer is noted: its documents stand.
    """
    if tools.effects is None:
        tools.log.note(f"{source.name} is not asked: its documents are those of earlier runs.")
        return
    base = tools.files.roots.base
    if base.is_relative_to(root):  # its copies could be a pipeline's files
        raise StepError("`root` is the pipeline's folder.", remedy="Give the copies their own.")
    try:
        credential = await source.credential(base)
        mirror = Mirror(root, source, credential, PlaceStates.of(tools.effects.state))
        notes = await in_left_thread(mirror.fetch)
    except SourceAway as error:
        tools.log.note(f"{source.name} is away, {error}. Its documents of before stand.")
    except SourceRefused as error:
        raise StepError(f"{source.name} {error}.", remedy=error.remedy, kind="io") from error
    except OSError as error:
        raise os_refusal(f"the documents of {source.name} cannot be written", error) from error
    else:
        if source.is_marked:
            tools.effects.at_end.append(mirror)
        for note in notes:
            tools.log.note(note)


class FolderScan(Struct, frozen=True):
    files: list[ScannedFile]
    notes: list[str]
    left_out: list[str]
    """Paths of files that a pattern leaves out."""
    not_taken: list[str]
    """Paths of files that no pattern is about."""


def scan_folder(
    params: FilesScanParams, root: Path, allowed: tuple[Path, ...], owned: frozenset[str]
) -> FolderScan:
    """Walk and hash, in a thread.

    Raises:
        StepError: the root is missing or not a folder.
    """
    walk = FolderWalk(
        root=root,
        include=Globs.of(params.include),
        exclude=Globs.of(params.exclude),
        left_out=owned,
        max_bytes=params.max_bytes,
        allowed=allowed if params.follow_links else (),
    )
    found, files = walk.files(params.newest), list[ScannedFile]()
    hint = [] if found or walk.without.too_large else [_no_files_note(params, walk)]
    files.extend(_hashed_files(found))
    files.reverse()
    scanned = FolderScan(files, [*hint, *walk.notes()], left_out=[], not_taken=[])
    for relpath in walk.without.unmatched:
        is_named = walk.include.names(relpath) or walk.exclude.names(relpath)
        (scanned.left_out if is_named else scanned.not_taken).append(f"{root}{os.sep}{relpath}")
    return scanned


def _no_files_note(params: FilesScanParams, walk: FolderWalk) -> str:
    unmatched, temporary = walk.without.unmatched, walk.without.temporary
    if not unmatched:
        but = f" but temporary ones: {listed_names(temporary)}" if temporary else ""
        return f"the folder has no files{but}."
    n = "1 file is" if len(unmatched) == 1 else f"{len(unmatched):,} files are"
    patterns = f"`include` ({_quoted(params.include)})"
    if params.exclude:
        patterns += f" without `exclude` ({_quoted(params.exclude)})"
    return f"{n} there, and none matches {patterns}: {listed_names(unmatched)}."


def _quoted(patterns: Sequence[str]) -> str:
    return ", ".join(f"'{pattern}'" for pattern in patterns)


def _hashed_files(found: list[FoundFile]) -> Iterator[ScannedFile]:
    """Yield files from the last on, without those that are gone.

    They leave `found`: what was found of a file takes as much memory as what is listed of it.
    """
    at, handle = "", -1
    with ExitStack() as opened:
        while found:
            file, sha256 = found.pop(), None
            folder, _, name = file.real.rpartition(os.sep)
            try:
                if folder != at or handle < 0:
                    opened.close()
                    handle = -1
                    handle = opened.enter_context(no_links.folder(folder or os.sep))
                    at = folder
                sha256 = sha256_of(name, folder=handle)
            except FileNotFoundError:
                continue
            except OSError:  # listed without a digest
                pass
            yield _listed_file(file, sha256)


def _listed_file(found: FoundFile, sha256: str | None) -> ScannedFile:
    name = found.relpath.rpartition("/")[2]
    dot = at if 0 < (at := name.rfind(".")) < len(name) - 1 else len(name)  # as pathlib has it
    return {
        "path": found.path,
        "relpath": found.relpath,
        "name": name,
        "stem": name[:dot],
        "suffix": sys.intern(name[dot:]),
        "size": found.size_bytes,
        "modified": modified_at(found.mtime_s),
        "sha256": sha256,
    }


def modified_at(mtime_s: float) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=mtime_s)  # a third of the time of one with a time zone
    except (OverflowError, ValueError):  # a clock that was never set
        moment = _EPOCH
    return f"{moment.isoformat(timespec='seconds')}Z"


def file_at(path: Path, relpath: str) -> ScannedFile | None:
    """Return a file as it was listed before it was moved here; None: it cannot be read."""
    try:
        facts = no_links.facts_of(path)
        found = next(_hashed_files([FoundFile.of(relpath, str(path), str(path), facts)]), None)
    except OSError:
        return None
    if found is None or found["sha256"] is None or not stat.S_ISREG(facts.st_mode):
        return None
    return found
