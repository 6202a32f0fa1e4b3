"""The step `files.upload`: copy the outputs in a folder to a bucket, at the end of a run.

The ledger knows the outputs as files of the folder: which item writes a path, what a person edited,
and what goes with its item. A hidden file of the folder says what the bucket has: of each object
the digest that was sent, and the version (`ETag`, or time and size) that it got there. An object of
another version was changed by another program, and is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from paddock.engine.system import no_links
from paddock.engine.system.files import read_json_object, write_json_atomically
from paddock.engine.system.records import Struct, asdict, field, record_from, replace
from paddock.engine.system.text import counted, listed
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.extras import missing_bucket_library
from paddock.steps.facts import Facts, TextFacts, Use, brings_none
from paddock.steps.paths import resolve_path
from paddock.steps.run_end import FolderAtEnd
from paddock.steps.sources.bucket import Bucket, BucketParams
from paddock.steps.sources.mirror import MOST_FAILURES, SourceAway, SourceRefused

_NAMED = 3


class FilesUploadParams(Params):
    folder: Annotated[str, Use.PATHS] = Field(min_length=1, description="Their folder.")
    bucket: Annotated[BucketParams, Use.TARGETS, Use.DOORS] = Field(
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
        elif (upload := Upload(folder, params.bucket)) not in tools.effects.at_end:
            tools.effects.at_end.append(upload)
        return FilesUploadOutput()


class _Object(Struct):
    """What a bucket has of a file."""

    sha256: str = ""
    version: str = ""
    intended: list[str] = field(default_factory=list)
    """Digests of what was about to be sent since; empty: it was."""

    def is_digest(self, digest: str) -> bool:
        return digest in (self.sha256, *self.intended)


class _Objects(Struct):
    by_name: dict[str, _Object] = field(default_factory=dict)


class _DueObjects(Struct):
    changed: dict[str, str] = field(default_factory=dict)
    """Digests of outputs that the bucket has in another state, or not at all."""
    gone: list[str] = field(default_factory=list)
    """Objects that have no file now."""
    too_large: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class Upload(Struct, frozen=True):
    folder: Path
    params: BucketParams

    def finish(self, at_end: FolderAtEnd) -> list[str]:
        """Send what has changed of the outputs, and remove there what has no file now."""
        name = self.params.name
        try:
            return self._send_outputs(at_end)
        except SourceAway as error:
            return [f"{name} is away, {error}. The next run sends what is left."]
        except OSError as error:
            return [f"{name} has not all outputs: {error}. The next run sends what is left."]
        except SourceRefused as error:
            raise StepError(f"{name} {error}.", remedy=error.remedy) from error

    def _send_outputs(self, at_end: FolderAtEnd) -> list[str]:
        of = hashlib.sha256(f"{at_end.pipeline}\n{self.params.url}".encode()).hexdigest()[:8]
        index = self.folder / f".upload-{of}.json"
        objects = _read_objects(index)
        due = self._compare(at_end.outputs, objects)
        kept, failed = list[str](), list[str]()
        if due.changed or due.gone:
            self._write(index, objects)  # a run that goes on knows what this one sent
            with ExitStack() as stack:
                bucket = stack.enter_context(self.params.opened(""))
                assert isinstance(bucket, Bucket)
                stack.callback(self._write, index, objects)
                for name, digest in due.changed.items():
                    try:
                        if not self._send(bucket, name, digest, objects[name], at_end.takes_over):
                            kept.append(name)
                    except (SourceAway, OSError) as error:  # its folder is none, or all is away
                        failed.append(f"{name} ({error})")
                        if len(failed) == MOST_FAILURES:
                            raise
                for name in due.gone:
                    known, version = objects[name], bucket.version(name)
                    if version in (None, known.version) or known.is_digest(_digest(bucket, name)):
                        bucket.remove(name)
                    else:
                        kept.append(name)
                    del objects[name]
        whys = {
            "changed there by another program, and kept": kept,
            "too large": due.too_large,
            "unreadable, or behind a link, and not sent": due.unread,
            "not sent now": failed,
        }
        return [
            f"{counted(len(those), 'output')} of {self.params.name} {why}: {listed(those, _NAMED)}."
            for why, those in whys.items()
            if those
        ]

    def _compare(self, names: Collection[str], objects: dict[str, _Object]) -> _DueObjects:
        """Compare the folder with what the bucket has; note digests of what is about to be sent."""
        due = _DueObjects()
        for name in sorted({*names, *objects}):
            known = objects.get(name, _Object())
            try:
                with self._open(name) as file:
                    if os.fstat(file.fileno()).st_size > self.params.max_bytes:
                        due.too_large.append(name)
                        continue
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except (FileNotFoundError, NotADirectoryError):  # it was removed with its item
                if name in objects:
                    due.gone.append(name)
            except (OSError, ValueError):
                due.unread.append(name)
            else:
                if name in names and (known.intended or digest != known.sha256):
                    due.changed[name] = digest
                    tried = [*dict.fromkeys([*known.intended, digest])]
                    objects[name] = replace(known, intended=tried)
        return due

    def _send(
        self, bucket: Bucket, name: str, digest: str, known: _Object, takes_over: bool
    ) -> bool:
        """Return whether the bucket has it then, and not what another program wrote."""
        version, there = bucket.version(name), ""
        if version not in (None, known.version):
            there = _digest(bucket, name)
            if not (takes_over or known.is_digest(there)):
                return False
        if there != digest:
            with self._open(name) as file:
                content = file.read()
            bucket.put(name, content)
            digest = hashlib.sha256(content).hexdigest()
            version = bucket.version(name)
        known.sha256, known.version = digest, version or ""
        known.intended.clear()
        return True

    def _open(self, name: str) -> BufferedReader:
        return no_links.open_file(self.folder / name)  # a link may lead to a secret

    def _write(self, index: Path, objects: dict[str, _Object]) -> None:
        write_json_atomically(index, asdict(_Objects(objects)), is_durable=True)


def _read_objects(index: Path) -> dict[str, _Object]:
    with suppress(ValueError):  # damaged: what is there with the same content is known again
        objects = record_from(_Objects, read_json_object(index)).by_name
        # Anyone may have written it: names lead nowhere else
        return {n: each for n, each in objects.items() if not {"", ".."} & {*n.split("/")}}
    return {}


def _digest(bucket: Bucket, name: str) -> str:
    return hashlib.sha256(bucket.content(name)).hexdigest()
