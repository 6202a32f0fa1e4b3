"""Write wheels, byte for byte the same from the same files, and say for which systems they are."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can hold

# What every Linux of these glibc versions has: PEP 600's libraries that a wheel may leave out.
_SYSTEM = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[\w-]*)\.so\b"
)

# The oldest glibc with which distributions ship that libstdc++ (GLIBCXX_3.4.N -> glibc 2.N).
_GLIBC_OF_GLIBCXX = {25: 28, 28: 31, 29: 34, 30: 35, 32: 38, 33: 39}
_LEAST_GLIBC = 17  # manylinux begins there


@dataclass(frozen=True, slots=True)
class Wheel:
    """What a wheel holds."""

    distribution: str
    version: str
    tag: str
    """As in `py3-none-any`."""
    summary: str
    licence: str
    """An SPDX expression."""
    licences: Mapping[str, bytes]
    files: Mapping[str, bytes | Path]
    """By their place under site-packages."""
    requires: Sequence[str] = ()
    extras: Mapping[str, str] = field(default_factory=dict)
    """What each extra requires."""
    metadata: str = ""
    """In place of what is written from the fields above."""


def write(wheel: Wheel, folder: Path) -> Path:
    """Write a wheel into a folder; returns its path."""
    stem = f"{wheel.distribution.replace('-', '_')}-{wheel.version}"
    info = f"{stem}.dist-info"
    pure = wheel.tag.endswith("-any")
    inside: dict[str, bytes | Path] = dict(wheel.files)
    inside[f"{info}/METADATA"] = (wheel.metadata or metadata(wheel)).encode()
    inside[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: paddock\nRoot-Is-Purelib: {str(pure).lower()}\n"
        f"Tag: {wheel.tag}\n"
    ).encode()
    inside |= {f"{info}/licenses/{name}": text for name, text in wheel.licences.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{wheel.tag}.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(inside):
            content = inside[name]
            data = content.read_bytes() if isinstance(content, Path) else content
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
            _add(archive, name, data)
        _add(archive, f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())
    return path


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    is_library = re.search(r"\.(so|dylib|dll)(\.\d+)*$", name)
    entry.external_attr = (0o100755 if is_library else 0o100644) << 16
    archive.writestr(entry, data)


def metadata(wheel: Wheel) -> str:
    """Return the file METADATA."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {wheel.distribution}",
        f"Version: {wheel.version}",
        f"Summary: {wheel.summary}",
        f"License-Expression: {wheel.licence}",
        *(f"License-File: {name}" for name in sorted(wheel.licences)),
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {one}" for one in wheel.requires),
    ]
    for extra, required in wheel.extras.items():
        lines += [f"Provides-Extra: {extra}", f'Requires-Dist: {required}; extra == "{extra}"']
    return "\n".join(lines) + "\n"


# Which systems a library runs on


def dynamic_section(library: Path) -> str:
    """Return what `objdump -p` says of a library."""
    command = ["objdump", "-p", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(section: str) -> list[str]:
    r"""Return the libraries that one asks for.

    >>> needed("  NEEDED               libgomp.so.1\n  SONAME               libggml.so\n")
    ['libgomp.so.1']
    """
    return re.findall(r"^\s*NEEDED\s+(\S+)$", section, re.MULTILINE)


def least_glibc(sections: Iterable[str]) -> int:
    """Return N of the oldest glibc 2.N that has every symbol, its libstdc++ included.

    >>> least_glibc(["0x06969189 0x00 20 GLIBC_2.29", "0x0297f879 0x00 10 GLIBCXX_3.4.29"])
    34
    """
    text = "\n".join(sections)
    glibc = [int(minor) for minor in re.findall(r"\bGLIBC_2\.(\d+)", text)]
    glibcxx = [int(minor) for minor in re.findall(r"\bGLIBCXX_3\.4\.(\d+)", text)]
    newest = max(glibcxx, default=0)
    for known, minor in sorted(_GLIBC_OF_GLIBCXX.items()):
        if newest <= known:
            return max(*glibc, minor if newest > min(_GLIBC_OF_GLIBCXX) else 0, _LEAST_GLIBC)
    raise SystemExit(f"GLIBCXX_3.4.{newest}: no glibc is known for it; see _GLIBC_OF_GLIBCXX")


def strangers(sections: Mapping[str, str], allowed: Iterable[str] = ()) -> list[str]:
    r"""Return what libraries ask for that is neither among them nor on every Linux.

    >>> strangers({"libggml.so": "NEEDED libc.so.6\nNEEDED libgomp.so.1"})
    ['libggml.so needs libgomp.so.1']
    """
    inside = {*sections, *allowed}
    return [
        f"{name} needs {one}"
        for name, section in sorted(sections.items())
        for one in needed(section)
        if one not in inside and not _SYSTEM.match(one)
    ]
