"""What a document offers to rules: its lines and their values. A decision keeps this, packed."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from paddock.engine.system.records import Struct, field, replace

from .alignment import PaperPart, parts_of
from .cell_values import OfferedLine, OfferedValue
from .reasons import WhyOpen

MOST_PACKED_CHARS = 131_072  # a document of 60 pages has some 60,000
_FORM = "2"  # of a packed text, its first character


class Offers(Struct, frozen=True, dict=True):
    lines: tuple[OfferedLine, ...] = ()
    names: tuple[str, ...] = ()
    """Cells that are a name, or begin with one."""
    seller: str = ""
    """Of an e-invoice."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice with which its page and its sums agree."""
    accounts: tuple[str, ...] = ()
    unread: WhyOpen | None = None
    """Why it offers nothing else; not packed, as what follows."""
    proposed: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice, whatever agrees."""
    unheld: Mapping[str, Any] = field(default_factory=dict)
    """By field of a few choices, its value in an e-invoice, which is none of them."""

    @cached_property
    def parts(self) -> Sequence[PaperPart]:
        """It as it is aligned with others."""
        return parts_of(self.lines)

    @property
    def kept(self) -> Offers:
        """It as a decision keeps it: without lines, or nothing, where it is too much."""
        if not (packed := self.pack()):
            return Offers(unread=WhyOpen.TOO_LONG) if self.lines and not self.unread else self
        kept = replace(self.unpack(packed), unread=self.unread)
        kept.__dict__["_packed"] = packed
        return kept

    def pack(self) -> str:
        """Return them as a text; empty: there is nothing, or it is too much to be kept."""
        return self._packed

    @cached_property
    def _packed(self) -> str:
        lines, at = list[list[Any]](), 0
        for line in self.lines:  # differences are alike, which zlib makes use of
            values = [
                [v.kind, v.start, v.end - v.start, v.written, v.digits[0] - line.start, v.unit]
                for v in line.values
            ]
            lines.append([line.text, line.row, line.start - at, values, line.cells])
            at = line.start
        of_whole = [self.seller, self.stated, self.accounts]
        for some in ([lines, self.names, *of_whole], [[], [], *of_whole]):
            text = json.dumps(some, ensure_ascii=False, separators=(",", ":")).encode()
            packed = _FORM + b64encode(zlib.compress(text)).decode()
            if len(packed) <= MOST_PACKED_CHARS:
                return packed if some[0] or self.stated else ""
        return ""

    @staticmethod
    def is_packed(packed: str) -> bool:
        """Return whether it is a packed text of this form; earlier ones have no lines."""
        return packed.startswith(_FORM)

    @classmethod
    def without_lines(cls, packed: str) -> Offers:
        """Read what was packed of a whole document, by earlier versions as well."""
        if not packed:
            return cls()
        is_new = cls.is_packed(packed)
        _, names, *of_whole = json.loads(zlib.decompress(b64decode(packed[is_new:])))
        seller, stated, accounts, *_ = of_whole if is_new else of_whole[2:]
        return cls((), tuple(names), seller, stated, tuple(accounts))

    @classmethod
    def unpack(cls, packed: str) -> Offers:
        if not cls.is_packed(packed):
            return cls()
        written, names, *of_whole = json.loads(zlib.decompress(b64decode(packed[1:])))
        lines, at = list[OfferedLine](), 0
        for text, row, behind_last, of_line, cells in written:
            at += behind_last
            values = tuple(
                OfferedValue(kind, start, start + n, shown, (at + d, at + d + len(shown)), unit)
                for kind, start, n, shown, d, unit in of_line
            )
            lines.append(OfferedLine(text, row, at, values, cells))
        offers = cls(tuple(lines), tuple(names), *of_whole)
        offers.__dict__["_packed"] = packed
        return offers
