"""Archives: each member is read as pages under its name. Standard library only.

Nothing is written under a member's name. The request's `check` bounds what all archives of a
document unpack to.
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import counted, encodable, one_line
from paddock.steps.temporary_names import is_temporary

from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerDocuments
from .office import CONTENT_TYPES, ENCRYPTED, PIECE_BYTES, damage_errors
from .reader import Document, ReadRequest, Unreadable

_MOST_MEMBERS = 1_000
_TAIL_BYTES = 22 + 65_535  # of a ZIP archive: its last record, and a comment
_IN_UTF_8 = 0x800
_TAR_END = bytes(tarfile.BLOCKSIZE)
_UNPACKED = {".gz": "", ".tgz": ".tar"}


class _Member(Struct, frozen=True):
    name: str
    read: Callable[[], bytes]
    size_bytes: int
    packed_bytes: int = 0
    """How many of them the archive does not hold as they are."""
    why_not: str = ""


def read_zip(file: BinaryIO, request: ReadRequest) -> Document:
    file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
    _, signs, end = file.read().rpartition(b"PK\x05\x06")
    if signs:
        _check_number(int.from_bytes(end[6:8], "little"))  # before each has an object
    zipfile.ZipExtFile.MAX_N = PIECE_BYTES  # else a whole member is inflated, then cut
    with damage_errors("a ZIP archive"), zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if any(entry.filename == CONTENT_TYPES for entry in entries):
            what = "is an office document under another name"
            raise Unreadable(what, "Give it the suffix of its kind: `.docx`, `.pptx` or `.xlsx`.")
        return _read_members([_zip_member(archive, entry) for entry in entries], "zip", request)


def read_tar(file: BinaryIO, request: ReadRequest) -> Document:
    with damage_errors("a tar archive"), tarfile.open(fileobj=file, mode="r:") as archive:
        held = [*islice(archive, _MOST_MEMBERS + 1)]
        _check_number(len(held))
        entries = [entry for entry in held if not entry.isdir()]
        found = _read_members([_tar_member(archive, entry) for entry in entries], "tar", request)
        file.seek(archive.offset)
        is_whole = file.read(len(_TAR_END)) == _TAR_END
    early = () if is_whole else (": it ends early, or is damaged behind what is read of it",)
    return replace(found, notes=(*found.notes, *early))


def read_gz(file: BinaryIO, request: ReadRequest) -> Document:
    """Read a packed file; a packed tar archive is that archive."""
    with tempfile.TemporaryFile() as content:
        with damage_errors("a gzip file"), gzip.open(file) as packed:
            while piece := packed.read(PIECE_BYTES):
                request.check(n_unpacked_bytes=len(piece))
                content.write(piece)
        path = PurePath(request.name)
        suffix = _UNPACKED.get(path.suffix.lower())
        name = path.name if suffix is None else path.stem + suffix
        size_bytes = content.seek(0, 2)
        content.seek(0)
        if name.lower().endswith(".tar") or content.read(len(_TAR_END))[257:262] == b"ustar":
            content.seek(0)
            return replace(read_tar(content, request), media_type=MEDIA_TYPES["gz"])
        content.seek(0)
        return _read_members([_Member(name or "content", content.read, size_bytes)], "gz", request)


def _read_members(members: Sequence[_Member], kind: str, request: ReadRequest) -> Document:
    _check_number(len(members))
    inner = InnerDocuments(request, "member")
    n_hidden = 0
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if any(is_temporary(part) for part in path.parts if part != ".."):
            n_hidden += 1
            continue
        name = one_line(encodable("".join(c if c.isprintable() else " " for c in str(path))))
        if path.is_absolute() or ".." in path.parts:
            inner.notes.append(f": member '{name}' names a place outside; nothing is written there")
        why = member.why_not or ("" if member.size_bytes else "it is empty")
        if not why:
            try:
                request.check(n_unpacked_bytes=member.packed_bytes)
                with damage_errors("a file"):
                    data = member.read()
            except Unreadable as error:
                why = f"it {error}"
            else:
                inner.add(name, "", data)
                continue
        inner.leave_out(name, why)
    inner.compare_invoices()
    if n_hidden:
        what = counted(n_hidden, "member is", "members are")
        inner.notes.append(f": {what} left out, hidden or temporary by the name")
    why_empty = next(iter(inner.notes), ": it has no files")
    return inner.document("", kind, f"holds nothing that is read{why_empty}")


def _check_number(n_members: int) -> None:
    if n_members > _MOST_MEMBERS:
        what = f"is an archive of over {_MOST_MEMBERS:,} files and folders"
        raise Unreadable(what, "Unpack it into a folder: each file is a document there.")


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    name = entry.filename
    if not entry.flag_bits & _IN_UTF_8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()  # macOS does not say that it writes UTF-8
    why_not = "it is protected by a password" if entry.flag_bits & ENCRYPTED else ""

    def read() -> bytes:  # at once, the library would copy it for each piece
        with archive.open(entry) as part:
            return b"".join(iter(partial(part.read, PIECE_BYTES), b""))

    return _Member(name, read, entry.file_size, entry.file_size, why_not)


def _tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> _Member:
    why_not = "" if entry.isreg() else f"it is a link to '{entry.linkname}', or no file"
    if entry.issparse():
        why_not = "it has holes in place of its content"

    def read() -> bytes:
        file = archive.extractfile(entry)
        return file.read() if file is not None else b""

    return _Member(entry.name, read, entry.size, 0, why_not)
