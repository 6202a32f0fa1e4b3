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
from paddock.steps.sources.bucket import Bucket, BucketParams

_BATCH = 100  # objects whose intents are recorded at once
_NAMED = 3


class FilesUploadParams(Params):
    folder: Annotated[str, Use.PATHS] = Field(min_length=1, description="Their folder.")
    bucket: Annotated[BucketParams, Use.TARGETS, Use.DOORS] = Field(description="S3 or SFTP.")

    @field_validator("bucket")
    @classmethod
    def _takes_files(cls, bucket: BucketParams) -> BucketParams:
        if bucket.is_web:
            raise ValueError("a web server takes no files; `s3://` and `sftp://` do")
        return bucket


class FilesUploadOutput(Output):
    """None: it is done after all steps."""


class FilesUpload(Step[FilesUploadParams, FilesUploadOutput]):
    """Outputs to a bucket as well, at the run's end."""

    params = FilesUploadParams
    output = FilesUploadOutput
    facts = Facts(texts=TextFacts(brings_none), missing=missing_bucket_library)

    async def run(self, params: FilesUploadParams, tools: Tools) -> FilesUploadOutput:
        folder = resolve_path(tools.files.roots, params.folder)
        if tools.files.roots.base.is_relative_to(folder):  # its own files are no outputs
            raise StepError("`folder` is the pipeline's folder.", remedy="Name one of outputs.")
        if tools.files.mirrors is None:
            tools.log.note(f"nothing is sent to {params.bucket.name} now.")
        elif (upload := Upload(folder, params.bucket)) not in tools.files.mirrors:
            tools.files.mirrors.append(upload)
        return FilesUploadOutput()


class _Object(Struct):
    """What a bucket has of a file."""

    sha256: str = ""
    version: str = ""
    intended: str = ""
    """The digest of what was about to be sent; empty: it was."""


class _Objects(Struct):
    by_name: dict[str, _Object] = field(default_factory=dict)


class Upload(Struct, frozen=True):
    folder: Path
    params: BucketParams

    def finish(self, names: Collection[str], *, takes_over: bool) -> list[str]:
        """Send what the bucket lacks of these outputs, and remove objects of others; return notes.

        `takes_over`: also in place of what another program wrote.

        Raises:
            SourceAway, SourceRefused, OSError: the next run goes on.
        """
        objects, digests = self._read(), dict[str, str]()
        kept, too_large = list[str](), list[str]()
        for name in sorted(names):
            try:
                with self._open(name) as file:
                    if os.fstat(file.fileno()).st_size <= self.params.max_bytes:
                        digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
                        continue
                    too_large.append(name)
            except FileNotFoundError:  # it was removed with its item
                continue
            except OSError:  # it is a link, or cannot be read
                pass
            digests[name] = ""  # neither sent nor removed
        sent = {name: each.sha256 for name, each in objects.items() if not each.intended}
        due = [name for name, digest in digests.items() if digest not in ("", sent.get(name))]
        gone = sorted(objects.keys() - digests.keys())
        if due or gone:
            with ExitStack() as stack:
                bucket = stack.enter_context(self.params.opened(""))
                assert isinstance(bucket, Bucket)
                stack.callback(self._write, objects)
                for first in range(0, len(due), _BATCH):
                    batch = list[str]()
                    for name in due[first : first + _BATCH]:
                        known = objects.get(name, _Object())
                        if takes_over or _is_ours(bucket, name, known, digests[name]):
                            objects[name] = replace(known, intended=digests[name])
                            batch.append(name)
                        else:
                            kept.append(name)
                    self._write(objects)
                    for name in batch:
                        with self._open(name) as file:
                            content = file.read()
                        bucket.put(name, content)
                        digest = hashlib.sha256(content).hexdigest()
                        objects[name] = _Object(digest, bucket.version(name) or "")
                for name in gone:
                    if takes_over or _is_ours(bucket, name, objects[name]):
                        bucket.remove(name)
                    else:
                        kept.append(name)
                    del objects[name]
        whys = {"changed there by another program, and kept": kept, "too large": too_large}
        return [
            f"{counted(len(those), 'output')} of {self.params.name} {why}: {listed(those, _NAMED)}."
            for why, those in whys.items()
            if those
        ]

    def _open(self, name: str) -> BufferedReader:
        return no_links.open_file(self.folder / name)  # a link may lead to a secret

    @property
    def _file(self) -> Path:
        of = hashlib.sha256(self.params.url.encode()).hexdigest()[:8]
        return self.folder / f".upload-{of}.json"

    def _read(self) -> dict[str, _Object]:
        with suppress(ValueError):  # damaged: what is there with the same content is known again
            objects = record_from(_Objects, read_json_object(self._file)).by_name
            # Anyone may have written it: names lead nowhere else
            return {name: each for name, each in objects.items() if ".." not in name.split("/")}
        return {}

    def _write(self, objects: dict[str, _Object]) -> None:
        write_json_atomically(self._file, asdict(_Objects(objects)), is_durable=True)


def _is_ours(bucket: Bucket, name: str, known: _Object, digest: str = "") -> bool:
    """Return whether nothing is there but what was sent, also by a run that was killed then."""
    version = bucket.version(name)
    if version is None or version == known.version:
        return True
    there = hashlib.sha256(bucket.content(name)).hexdigest()
    return there in {known.sha256, known.intended, digest}
