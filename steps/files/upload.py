"""The step `files.upload`: copy the outputs in a folder to a bucket, at the end of a run.

The ledger knows the outputs as files of the folder: which item writes a path, what a person edited,
and what goes with its item. A file of the pipelines' state folder says what the bucket has of all
of them: of each object the digest that was sent, the version (`ETag`, or time and size) that it got
there, and of which file it is. An object of another version was changed by another program, and is
kept.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from paddock.engine.system import no_links
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import read_json_object
from paddock.engine.system.records import Struct, field, known_record, replace
from paddock.engine.system.text import counted, encodable, listed
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.effects import BucketTarget
from paddock.steps.extras import missing_bucket_library
from paddock.steps.facts import Facts, TextFacts, brings_none
from paddock.steps.param_types import PathParam
from paddock.steps.paths import resolve_path
from paddock.steps.run_end import FolderAtEnd
from paddock.steps.sources.bucket import Bucket, BucketParams
from paddock.steps.sources.mirror import MOST_FAILURES, SourceAway, SourceRefused
from paddock.steps.sources.place_states import PlaceStates, read_state, write_state

_KIND, _NAMED = "upload", 3
_LOCK_S = 600.0  # another run may send thousands


class FilesUploadParams(Params):
    folder: Annotated[str, PathParam] = Field(min_length=1, description="Their folder.")
    bucket: Annotated[BucketParams, BucketTarget] = Field(
        description="S3 or SFTP.", examples=[{"url": "s3://bucket/folder"}]
    )

    @field_validator("bucket")
    @classmethod
    def _takes_files(cls, bucket: BucketParams) -> BucketParams:
        if bucket.is_web:
            raise ValueError("a web server takes no files; `s3://` and `sftp://` do")
        return bucket


class FilesUploadOutput(Output):
    """None: it is done after all steps."""


class FilesUpload(Step[FilesUploadParams, FilesUploadOutput]):
    """Outputs to a bucket, at the end."""

    params = FilesUploadParams
    output = FilesUploadOutput
    facts = Facts(texts=TextFacts(brings_none), missing=missing_bucket_library)

    async def run(self, params: FilesUploadParams, tools: Tools) -> FilesUploadOutput:
        if tools.item.key != tools.item.step:  # what was not sent is sent by the next run
            raise StepError("items are not done in each run.", remedy="Move it out of the block.")
        folder = resolve_path(tools.files.roots, params.folder)
        if tools.files.roots.base.is_relative_to(folder):  # its own files are no outputs
            raise StepError("`folder` is the pipeline's folder.", remedy="Name one of outputs.")
        if tools.effects is None:
            tools.log.note(f"nothing is sent to {params.bucket.name} now.")
        else:
            upload = Upload(folder, params.bucket, PlaceStates.of(tools.effects.state))
            if upload not in tools.effects.at_end:
                tools.effects.at_end.append(upload)
        return FilesUploadOutput()


class _Object(Struct):
    """What a bucket has of a file."""

    sha256: str = ""
    version: str = ""
    intended: list[str] = field(default_factory=list)
    """Digests of what was about to be sent since; empty: it was."""
    folder: str = ""
    """Of its file, as seen from the pipelines' folder."""
    pipeline: str = ""

    def is_digest(self, digest: str) -> bool:
        return digest in (self.sha256, *self.intended)


class _Objects(Struct):
    by_name: dict[str, _Object] = field(default_factory=dict)


class _DueObjects(Struct):
    changed: dict[str, str] = field(default_factory=dict)
    """Digests of outputs that the bucket has in another state, or not at all."""
    gone: list[str] = field(default_factory=list)
    """Objects that have no file now."""
    others: list[str] = field(default_factory=list)
    """What the bucket has under their names is of another folder or pipeline."""
    too_large: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    has_moved: bool = False
    """The folder or the pipeline has another name."""


class Upload(Struct, frozen=True):
    folder: Path
    params: BucketParams
    states: PlaceStates

    def finish(self, at_end: FolderAtEnd) -> list[str]:
        """Send what has changed of the outputs, and remove there what has no file now."""
        name, file = self.params.name, self.states.file(_KIND, self.params.address)
        try:
            with lock_now(file.with_suffix(".lock"), wait_s=_LOCK_S):
                return self._send_changed(file, at_end)
        except LockTaken:
            return [f"{name} is away, another run sends to it. The next run sends what is left."]
        except SourceAway as error:
            return [f"{name} is away, {error}. The next run sends what is left."]
        except OSError as error:
            return [f"{name} has not all outputs: {error}. The next run sends what is left."]
        except SourceRefused as error:
            raise StepError(f"{name} {error}.", remedy=error.remedy) from error

    def _send_changed(self, file: Path, at_end: FolderAtEnd) -> list[str]:
        known = read_state(file, _Objects) or _Objects()
        taken_over = self._take_over(known, at_end)
        objects, due = known.by_name, self._compare(at_end, known.by_name)
        kept, unknown, failed = list[str](), list[str](), list[str]()
        if due.changed or due.gone or due.has_moved or taken_over:
            write_state(file, known)  # a run that goes on knows what this one sent
            for old in taken_over:
                old.unlink(missing_ok=True)
        if due.changed or due.gone:
            with ExitStack() as stack:
                bucket = stack.enter_context(self.params.opened(""))
                assert isinstance(bucket, Bucket)
                stack.callback(write_state, file, known)
                for name, digest in due.changed.items():
                    was_sent = objects[name].sha256 != ""
                    try:
                        if not self._send(bucket, name, digest, objects[name], at_end.takes_over):
                            (kept if was_sent else unknown).append(name)
                    except (SourceAway, OSError) as error:  # its folder is none, or all is away
                        failed.append(f"{name} ({error})")
                        if len(failed) == MOST_FAILURES:
                            raise
                for name in due.gone:
                    gone, version = objects[name], bucket.version(name)
                    if version in (None, gone.version) or gone.is_digest(_digest(bucket, name)):
                        bucket.remove(name)
                    else:
                        kept.append(name)
                    del objects[name]
        whys = {
            "changed there by another program, and kept": kept,
            "not sent from here, or changed there by another program, and kept": unknown,
            "of a name that another folder or pipeline has there, and not sent": due.others,
            "too large": due.too_large,
            "unreadable, or behind a link, and not sent": due.unread,
            "not sent now": failed,
        }
        return [
            f"{counted(len(those), 'output')} of {self.params.name} {why}: {listed(those, _NAMED)}."
            for why, those in whys.items()
            if those
        ]

    def _compare(self, at_end: FolderAtEnd, objects: dict[str, _Object]) -> _DueObjects:
        """Compare outputs with what the bucket has; note digests of what is about to be sent."""
        due, own = _DueObjects(), self.states.relative(self.folder)
        for name in sorted({*at_end.outputs, *objects}):
            known = objects.get(name) or _Object(folder=own, pipeline=at_end.pipeline)
            if name not in at_end.outputs:
                if self._is_gone(known, name, at_end):
                    due.gone.append(name)
                continue
            try:
                with no_links.open_file(self.folder / name) as file:  # a link may lead to a secret
                    if os.fstat(file.fileno()).st_size > self.params.max_bytes:
                        due.too_large.append(name)
                        continue
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except (FileNotFoundError, NotADirectoryError):  # it was removed with its item
                if name in objects and self._is_gone(known, name, at_end):
                    due.gone.append(name)
            except (OSError, ValueError):
                due.unread.append(name)
            else:
                if not at_end.takes_over and self._is_anothers(known, name, at_end):
                    due.others.append(name)
                    continue
                now = replace(known, folder=own, pipeline=at_end.pipeline)
                if known.intended or digest != known.sha256:
                    now.intended = [*dict.fromkeys([*known.intended, digest])]
                    due.changed[name] = digest
                if now != known:
                    objects[name] = now
                    due.has_moved = True
        return due

    def _is_anothers(self, known: _Object, name: str, at_end: FolderAtEnd) -> bool:
        """Return whether an object is of a file of another folder, and stays that.

        1. A file of another pipeline does as long as it is there.
        2. One of this pipeline does if it is made still, or a step of this run sends its folder.
        """
        folder = self.states.absolute(known.folder)
        if folder == self.folder or not os.path.lexists(folder / name):
            return False
        is_made = folder in at_end.folders or at_end.applies(str(folder / name))
        return known.pipeline != at_end.pipeline or is_made

    def _is_gone(self, known: _Object, name: str, at_end: FolderAtEnd) -> bool:
        """Return whether an object has no file any more; a folder that is away has lost none."""
        folder = self.states.absolute(known.folder)
        if os.path.lexists(folder / name):
            return False
        is_own = known.pipeline == at_end.pipeline
        return folder.exists() or (is_own and not at_end.applies(str(folder / name)))

    def _take_over(self, known: _Objects, at_end: FolderAtEnd) -> list[Path]:
        """Add what earlier versions of Paddock noted beside the outputs; return their files."""
        own, found = self.states.relative(self.folder), list[Path]()
        is_known = any(
            (each.folder, each.pipeline) == (own, at_end.pipeline)
            for each in known.by_name.values()
        )
        for former in at_end.former_names:
            of = hashlib.sha256(f"{former}\n{self.params.url}".encode()).hexdigest()[:8]
            if not (old := self.folder / f".upload-{of}.json").exists():
                continue
            found.append(old)
            objects = known_record(_Objects, read_json_object(old)) or _Objects()
            for name, each in objects.by_name.items():
                # Anyone may have written it: names lead nowhere else
                leads = {"", ".."} & {*name.split("/")} or "\0" in name or name != encodable(name)
                if not (is_known or leads):
                    each.folder, each.pipeline = own, at_end.pipeline
                    known.by_name.setdefault(name, each)
        return found

    def _send(
        self, bucket: Bucket, name: str, digest: str, known: _Object, takes_over: bool
    ) -> bool:
        """Return whether the bucket has it then, and not what another program wrote."""
        version, there = bucket.version(name), ""
        if version not in (None, known.version):
            there = _digest(bucket, name)
            if not (takes_over or known.is_digest(there)):
                known.intended[:] = [digest]  # none of those before was the last to be written
                return False
        if there != digest:
            with no_links.open_file(self.folder / name) as file:
                content = file.read()
            bucket.put(name, content)
            digest = hashlib.sha256(content).hexdigest()
            version = bucket.version(name)
        known.sha256, known.version = digest, version or ""
        known.intended.clear()
        return True


def _digest(bucket: Bucket, name: str) -> str:
    return hashlib.sha256(bucket.content(name)).hexdigest()
