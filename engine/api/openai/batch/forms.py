"""Read an uploaded file as forms send it: its bytes go to disk as they come.

Knows no purpose. Starlette's own form would keep a copy in the system's temporary folder, which
is often main memory; here the bytes go where they are to stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai.refusals import InvalidValue

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FIELD_BYTES = 64 * 1024
"""Of all the fields that are no file, together."""
PORTION_BYTES = 256 * 1024
"""So much is gathered before a thread writes it."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a form said beside its file."""

    fields: Mapping[str, str]
    filename: str
    size_bytes: int


async def read_form(request: Request, into: IO[bytes], name: str = "file") -> Form:
    """Read a form whose part `name` is a file, and write that file's bytes.

    Raises:
        ApiError: 400, it is no form, or has no such file.
        OSError: the bytes cannot be written.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidValue("send the file as multipart/form-data.", name)
    reader = _Reader(name)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for data in request.stream():
            parser.write(data)
            if len(reader.waiting) >= PORTION_BYTES:
                await asyncio.to_thread(into.write, reader.taken())
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, f"the form cannot be read: {error}") from None
    await asyncio.to_thread(into.write, reader.taken())
    if reader.filename is None:
        raise InvalidValue(
            f"Missing required parameter: '{name}'.", name, "missing_required_parameter"
        )
    return Form(reader.fields, reader.filename, reader.size_bytes)


class _Reader:
    """Hears what the parser finds; keeps fields, and the file's bytes until they are taken."""

    def __init__(self, name: str) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self.waiting = bytearray()
        self._name = name
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._field = ""
        self._value = bytearray()
        self._is_file = False
        self._n_field_bytes = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def taken(self) -> bytes:
        """Give the file's bytes that nobody has written yet."""
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken

    def _begin(self) -> None:
        self._disposition, self._value = b"", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = [bytearray(), bytearray()]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field == self._name
        if not self._is_file:
            return
        if self.filename is not None:
            raise InvalidValue("send one file at a time.", self._name)
        self.filename = options.get(b"filename", b"upload").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.waiting += data[start:end]
            self.size_bytes += end - start
            return
        self._n_field_bytes += end - start
        if self._n_field_bytes > MOST_FIELD_BYTES:
            raise ApiError(413, f"the form's fields have more than {MOST_FIELD_BYTES} bytes")
        self._value += data[start:end]

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._field] = self._value.decode("utf-8", "replace")
