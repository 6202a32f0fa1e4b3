"""Check in a compiled library that AMX tiles are configured whole.

`ldtilecfg` reads 64 bytes. GCC 12 believes that `_tile_loadconfig` reads 8 and drops the stores of
the rest as dead, unless -fno-dse forbids it (llama.cpp#20824). What is left are zeros from when the
structure was made: tiles without rows and columns, and the instruction faults.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

CONFIG_BYTES = 64
# ggml sets all eight tiles: bytes in a row of each (16 bits), and rows of each.
_SET = {*range(16, 32), *range(48, 56)}
_REACH = 60  # instructions before `ldtilecfg` among which its stores are
_LOAD = re.compile(r"\bldtilecfg\s+(-?(?:0x)?[0-9a-f]*)\((%\w+)\)")
_STORE = re.compile(
    r"\b(v?mov\w*)\s+(%\w+|\$-?(?:0x)?[0-9a-f]+),(-?(?:0x)?[0-9a-f]*)\((%\w+)\)\s*(?:#.*)?$"
)
_ZEROED = re.compile(r"\bv?p?xor\w*\s+%(?:[xyz]mm)(\d+),%[xyz]mm\1(?:,%[xyz]mm(\d+))?\s*$")
_WRITTEN = re.compile(r",%[xyz]mm(\d+)\s*(?:\{.*)?(?:#.*)?$")
_REGISTER_BYTES = {"zmm": 64, "ymm": 32, "xmm": 16}
_SUFFIX_BYTES = {"b": 1, "w": 2, "l": 4, "q": 8}


def disassembly(library: Path) -> str:
    """Return a library's code."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def missing_bytes(code: str) -> list[int]:
    r"""Return for each `ldtilecfg` how many of its bytes were not stored, or are still zero.

    >>> zeros = "vpxor %xmm0,%xmm0,%xmm0\n vmovdqa64 %zmm0,0xc0(%rsp)\n movb $0x1,0xc0(%rsp)\n"
    >>> columns, rows = "vmovdqa %xmm1,0xd0(%rsp)\n", "mov %rdx,0xf0(%rsp)\n"
    >>> load = "ldtilecfg 0xc0(%rsp)"
    >>> missing_bytes(zeros + columns + rows + load), missing_bytes(zeros + load)
    ([0], [24])
    >>> missing_bytes(columns + rows + load)
    [40]
    """
    lines = code.splitlines()
    return [
        _missing(lines[max(0, at - _REACH) : at], place, register)
        for at, place, register in _loads(lines)
    ]


def _loads(lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    for at, line in enumerate(lines):
        if found := _LOAD.search(line):
            yield at, int(found[1] or "0", 0), found[2]


def _missing(lines: Sequence[str], place: int, register: str) -> int:
    stored: set[int] = set()
    set_later: set[int] = set()
    zeros: set[str] = set()
    for line in lines:
        if found := _STORE.search(line):
            if found[4] == register:
                size = _size(found[1], found[2])
                begin = int(found[3] or "0", 0) - place
                stored |= {*range(begin, begin + size)}
                if size < CONFIG_BYTES and not _is_zero(found[2], zeros):
                    set_later |= {*range(begin, begin + size)}
        elif found := _ZEROED.search(line):
            zeros.add(found[2] or found[1])
        elif found := _WRITTEN.search(line):
            zeros.discard(found[1])
    return len(({*range(CONFIG_BYTES)} - stored) | (_SET - set_later))


def _is_zero(source: str, zeros: set[str]) -> bool:
    return source in ("$0x0", "$0") or (source[2:4] == "mm" and source[4:] in zeros)


def _size(mnemonic: str, source: str) -> int:
    """Return how many bytes an instruction stores.

    >>> _size("vmovdqa", "%xmm0"), _size("mov", "%rdx"), _size("movb", "$0x1"), _size("mov", "%eax")
    (16, 8, 1, 4)
    """
    if source.startswith("$"):
        return _SUFFIX_BYTES.get(mnemonic[-1], 0)
    name = source.lstrip("%")
    if mnemonic in ("vmovq", "vmovlps", "movlps", "movq", "vmovhps", "movhps"):
        return 8
    if mnemonic in ("vmovd", "movd"):
        return 4
    if name[:3] in _REGISTER_BYTES:
        return _REGISTER_BYTES[name[:3]]
    if name.startswith("r"):
        return {"d": 4, "w": 2, "b": 1}.get(name[-1], 8) if name[1:2].isdigit() else 8
    if name.startswith("e"):
        return 4
    return 1 if name.endswith(("l", "h")) else 2
