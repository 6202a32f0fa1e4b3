"""What a document offers to rules, packed: a decision keeps this of its document."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from paddock.engine.system.records import Struct, field

from .reasons import WhyOpen

How = Literal["in", "left", "above", "prose"]
MOST_PACKED_CHARS = 4_096


class OfferedValue(Struct, frozen=True, gc=False):  # 5,000 decisions hold 80,000, and no cycle
    how: How
    label: str
    """Its words; empty: nothing governs the value."""
    written: str
    """As it stands, with a minus before the digits of an amount with one before it, without its
    currency."""
    block: int
    start: int
    end: int
    around: str = ""
    """What else stands around a number in its row, as `cell_values` writes it; empty: nothing."""

    @property
    def anchor(self) -> tuple[str, str]:
        return self.how, self.label


class Offers(Struct, frozen=True, dict=True):
    words: frozenset[str] = frozenset()
    """Cells without digits that govern no value, folded: titles, names, greetings; `¤` and the
    sign of each currency."""
    names: tuple[str, ...] = ()
    """Cells that are a name, or begin with one."""
    values: tuple[OfferedValue, ...] = ()
    blocks: tuple[frozenset[str], ...] = ()
    """The labels of each block."""
    seller: str = ""
    """Of an e-invoice."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice with which its page and its sums agree."""
    accounts: tuple[str, ...] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By field with a few choices, those whose words stand in the text."""
    currencies: Sequence[str] = ()
    """Those that the text names."""
    pairs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By label, the words behind it; by a row's words, its ticks; by nothing, its sentences."""
    unread: WhyOpen | None = None
    """Why it offers nothing else; not packed, as what follows."""
    sums: Mapping[str, float] = field(default_factory=dict)
    proposed: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice, whatever agrees."""

    @cached_property
    def by_anchor(self) -> Mapping[tuple[str, str], Sequence[OfferedValue]]:
        """The values that something governs."""
        found = defaultdict[tuple[str, str], list[OfferedValue]](list)
        for value in self.values:
            if value.label:
                found[value.how, value.label].append(value)
        return found

    def pack(self) -> str:
        """Return them as a text; empty: they are too many to be kept."""
        values, at = list[list[Any]](), 0
        for v in self.values:  # differences are alike, which zlib makes use of
            n_behind = v.end - v.start - len(v.written)
            values.append([v.how, v.label, v.written, v.block, v.start - at, n_behind, v.around])
            at = v.start
        data = [sorted(self.words), self.names, values, [sorted(block) for block in self.blocks]]
        stated = [self.seller, self.stated, self.accounts, self.named, self.currencies]
        for some in ((*data, *stated, self.pairs), ([], [], [], [], *stated)):
            text = json.dumps(some, ensure_ascii=False, separators=(",", ":")).encode()
            packed = b64encode(zlib.compress(text)).decode()
            if len(packed) <= MOST_PACKED_CHARS:
                return packed if some[0] or self.stated else ""
        return ""

    @classmethod
    def unpack(cls, packed: str) -> Offers:
        if not packed:
            return cls()
        words, names, values, blocks, *of_whole = json.loads(zlib.decompress(b64decode(packed)))
        offered, at = list[OfferedValue](), 0
        for how, label, written, block, behind_last, n_behind, around in values:
            at += behind_last
            end = at + len(written) + n_behind
            offered.append(OfferedValue(how, label, written, block, at, end, around))
        of_blocks = tuple(map(frozenset, blocks))
        return cls(frozenset(words), tuple(names), tuple(offered), of_blocks, *of_whole)
