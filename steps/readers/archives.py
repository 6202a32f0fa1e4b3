"""Archives: each member is read as pages under its name. Standard library only.

Nothing is written under a member's name. The request's `check` bounds what all archives of a
document unpack to.
"""

from __future__ import annotations

import csv
import gzip
import re
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import counted, encodable, listed, one_line
from paddock.steps.temporary_names import is_temporary

from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerDocuments
from .office import CONTENT_TYPES, ENCRYPTED, PIECE_BYTES, damage_errors
from .reader import Document, ReadRequest, Unreadable
from .text_encoding import NotText, decode_text

_MOST_MEMBERS = 1_000
_MOST_NAMED = 3
_TAIL_BYTES = 22 + 65_535  # of a ZIP archive: its last record, and a comment
_IN_UTF_8 = 0x800
_NAME_FIELD = 0x7075  # of Info-ZIP: the name in UTF-8, and the checksum of the one that it is for
with Path(__file__).with_name("zip_methods.csv").open(encoding="utf-8") as _file:
    _METHODS = {int(number): name for number, name in csv.reader(_file)}
"""By their numbers in APPNOTE 6.3.10, 4.4.5."""
_UNSURE_NAMES = ": it does not say how names are written: they are unsure, and read as {}"
_MIXED_CASE = re.compile("[a-zß-öø-ÿ][A-ZÀ-ÖØ-Þ]")
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
    before, signs, end = file.read().rpartition(b"PK\x05\x06")
    n_members = int.from_bytes(end[6:8], "little")
    if n_members == 0xFFFF and before[-20:-16] == b"PK\x06\x07":  # the number is in ZIP64's record
        n_members = int.from_bytes(before.rpartition(b"PK\x06\x06")[2][28:36], "little")
    if signs:
        _check_number(n_members)  # before each has an object
    zipfile.ZipExtFile.MAX_N = PIECE_BYTES  # else a whole member is inflated, then cut
    with damage_errors("a ZIP archive"), zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename[-1:] != "/"]
        if any(entry.filename == CONTENT_TYPES for entry in entries):
            what = "is an office document under another name"
            raise Unreadable(what, "Give it the suffix of its kind: `.docx`, `.pptx` or `.xlsx`.")
        names, notes = _zip_names(entries)
        is_container = entries[:1] and entries[0].filename == "mimetype"  # such as ASiC, by OCF
        around = [n for n in names if is_container and (n == "mimetype" or n[:9] == "META-INF/")]
        if around:
            what = "what packs and signs it is neither read nor checked"
            notes.append(f": {what} ({listed(around, _MOST_NAMED)})")
        members = [
            _zip_member(archive, entry, name)
            for entry, name in zip(entries, names, strict=True)
            if name not in around
        ]
        return _read_members(members, "zip", request, notes)


def _zip_names(entries: Sequence[zipfile.ZipInfo]) -> tuple[list[str], list[str]]:
    """Return the names of members, and a note where it is not sure how they are written.

    1. As their flag or Info-ZIP's field says.
    2. In UTF-8: macOS does not say that it writes it.
    3. In IBM's encoding 437, by the standard, where that makes Latin letters; else as all tell.
    """
    names = list[str]()
    unsure = dict[int, bytes]()
    for entry in entries:
        name = entry.orig_filename.partition("\0")[0]
        if not entry.flag_bits & _IN_UTF_8:
            written = name.encode("cp437")
            try:
                name = _name_in_field(entry.extra, written) or written.decode()
            except UnicodeDecodeError:
                unsure[len(names)] = written
        names.append(name)
    shown = "\n".join(names[at] for at in unsure)
    is_latin = all(c.isascii() or unicodedata.name(c, "")[:5] == "LATIN" for c in shown)
    if unsure and is_latin and not _MIXED_CASE.search(shown):
        return names, [_UNSURE_NAMES.format("cp437")]
    return _names_together(names, unsure)


def _names_together(names: list[str], unsure: Mapping[int, bytes]) -> tuple[list[str], list[str]]:
    """Return names, with those read that say no encoding, by what all of these can be."""
    if not unsure:
        return names, []
    encoding = "cp437"
    with suppress(NotText):
        decoded = decode_text(b"\n".join(unsure.values()), declared=("",))
        known = dict(zip(unsure, decoded.written.split("\n"), strict=True))
        names = [known.get(at, name) for at, name in enumerate(names)]
        encoding = decoded.encoding
    return names, [_UNSURE_NAMES.format(encoding)]


def read_tar(file: BinaryIO, request: ReadRequest) -> Document:
    with damage_errors("a tar archive"), tarfile.open(fileobj=file, mode="r:") as archive:
        held = [*islice(archive, _MOST_MEMBERS + 1)]
        _check_number(len(held))
        entries = [entry for entry in held if not entry.isdir()]
        names = [entry.name for entry in entries]
        odd = {n: name for n, name in enumerate(names) if encodable(name) != name}
        unsure = {n: name.encode("utf-8", "surrogateescape") for n, name in odd.items()}
        names, notes = _names_together(names, unsure)
        members = [_tar_member(archive, e, name) for e, name in zip(entries, names, strict=True)]
        found = _read_members(members, "tar", request, notes)
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


def _read_members(
    members: Sequence[_Member], kind: str, request: ReadRequest, notes: Iterable[str] = ()
) -> Document:
    _check_number(len(members))
    inner = InnerDocuments(request, "member", notes=[*notes])
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


def _name_in_field(extra: bytes, written: bytes) -> str:
    """Return the name that Info-ZIP's field has for a member, if it is for this one."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        checksum, name = extra[5:9], extra[9 : 4 + size]
        if tag == _NAME_FIELD and checksum == struct.pack("<L", zlib.crc32(written)):
            return name.decode("utf-8", "replace")
        extra = extra[4 + size :]
    return ""


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> _Member:
    why_not = "it is protected by a password" if entry.flag_bits & ENCRYPTED else ""

    def read() -> bytes:  # at once, the library would copy it for each piece
        try:
            with archive.open(entry) as part:
                return b"".join(iter(partial(part.read, PIECE_BYTES), b""))
        except NotImplementedError as error:
            method = _METHODS.get(entry.compress_type, f"method {entry.compress_type}")
            why = f"is packed by {method}, which is not read; pack it again with Deflate"
            raise Unreadable(why) from error

    return _Member(name, read, entry.file_size, entry.file_size, why_not)


def _tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> _Member:
    why_not = "" if entry.isreg() else f"it is a link to '{entry.linkname}', or no file"
    if entry.issparse():
        why_not = "it has holes in place of its content"

    def read() -> bytes:
        file = archive.extractfile(entry)
        return file.read() if file is not None else b""

    return _Member(name, read, entry.size, 0, why_not)
