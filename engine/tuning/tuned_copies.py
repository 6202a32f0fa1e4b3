"""Tuned copies: which format a copy of a model has, and records of copies and refusals.

Imports no llama_cpp. A copy is a blob of its own in the model store, under its own digest; the
original stays. The record is in the cache folder: it holds for one processor and build of
llama.cpp. A copy whose file was removed does not count. A refusal says why there is no copy, so
that none is tried again and again; a copy that crashed becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from paddock.engine.gguf import TYPE_NAMES, GgufHeader
from paddock.engine.llama.build import find_build
from paddock.engine.system import files
from paddock.engine.system.hardware import read_cpu
from paddock.engine.system.records import Struct, asdict, known_record

# Names of the formats of copies that OpenVINO computes, with 32 and with 16 bits.
OPENVINO, OPENVINO_BF16 = "OpenVINO", "OpenVINO BF16"
# All weights of a copy are read for each token: a model of 16 bits that is larger writes an answer
# alone much more slowly.
MOST_WEIGHTS_IN_16_BITS, MOST_WEIGHTS = 5 * 10**8, 2 * 10**9
# Multiplied one row at a time by llama.cpp, whereas Q8_0 has kernels for several rows.
_ONE_ROW_FORMATS = frozenset(["Q4_1", "Q5_1"])
_AT_MOST_8_BITS = frozenset([
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
])  # fmt: skip


def copy_format(header: GgufHeader, features: Collection[str]) -> tuple[str, frozenset[str]]:
    """Return the format of a model's copy, and the names of the matrices that change.

    None of them: it has no copy. `features` are the processor's.

    1. Of at most 500 million weights: matrices of 8 bits and fewer to BF16 where AVX512_BF16
       multiplies it, else to F16.
    2. Of at most 2,000 million: matrices in formats without kernels for several rows to Q8_0.
    """
    n_weights = sum(tensor.n_weights for tensor in header.tensors)
    if n_weights <= MOST_WEIGHTS_IN_16_BITS:
        target, slow = "BF16" if "avx512_bf16" in features else "F16", _AT_MOST_8_BITS
    else:
        target = "Q8_0"
        slow = _ONE_ROW_FORMATS if n_weights <= MOST_WEIGHTS else frozenset()
    return target, frozenset(
        tensor.name
        for tensor in header.tensors
        if len(tensor.axes) > 1 and TYPE_NAMES.get(tensor.kind) in slow
    )


def may_have_ir(header: GgufHeader) -> bool:
    """Return whether a model may be computed by OpenVINO: installed, and positions are plain.

    A short text does not tell whether the reader of openvino-genai heeds a sliding window or
    stretched positions, so a model that has any is computed by llama.cpp.
    """
    architecture = header.values.get("general.architecture")
    is_plain = not header.number("attention.sliding_window") and not any(
        key.startswith(f"{architecture}.rope.scaling.") for key in header.values
    )
    has_factors = any(
        tensor.name.startswith("rope_factors") or "rope_freqs" in tensor.name
        for tensor in header.tensors
    )
    n_weights = sum(tensor.n_weights for tensor in header.tensors)
    is_small = n_weights <= MOST_WEIGHTS
    return (
        (header.role == "chat" or (header.architecture == "bert" and header.role == "embed"))
        and is_plain
        and not has_factors
        and is_small
        and bool(openvino_version())
    )


def copy_place() -> str:
    """Return the processor, which a name alone may not tell, and the builds of both engines."""
    cpu = read_cpu()
    return " ".join((cpu.name, *cpu.features, find_build().fingerprint, openvino_version()))


@cache
def openvino_version() -> str:
    """Return the version of the OpenVINO that is installed; empty: none is."""
    try:
        return f"openvino {metadata.version('openvino-genai')}"
    except metadata.PackageNotFoundError:
        return ""


class TunedCopy(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    original: str
    """sha256 of the model's file."""
    original_path: str
    place: str
    why_none: str = ""
    """Empty: there is a copy."""
    digest: str = ""
    """sha256 of the copy."""
    path: str = ""
    format: str = ""
    size_bytes: int = 0
    prompts_ratio: float = 1.0
    """How many times as fast it reads prompts."""
    answers_ratio: float = 1.0
    """How many times as fast it writes eight answers at once."""
    agreement: float = 1.0
    """Share of next tokens of the reference text that are the original's; of an embedding model the
    mean cosine."""
    is_embedder: bool = False
    version: Literal[5] = 5

    @property
    def is_ir(self) -> bool:
        """Whether OpenVINO computes it, from two files: weights (`path`) and their graph."""
        return self.format in (OPENVINO, OPENVINO_BF16)

    @property
    def summary(self) -> str:
        """Format, speed-up and agreement in one line; or why there is none."""
        if self.why_none:
            return f"none: {self.why_none}"
        writes = f" and writes eight answers at once {self.answers_ratio:.1f}"
        return (
            f"{self.format}, reads {self.prompts_ratio:.1f}{'' if self.is_embedder else writes} "
            f"times as fast, agrees in {100 * self.agreement:.1f} %"
        )


class TunedCopyStore:
    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "tuned"

    def find(self, original: str) -> TunedCopy | None:
        known = self.record(original)
        if known is None or known.why_none:
            return None
        try:
            is_whole = Path(known.path).stat().st_size == known.size_bytes
        except OSError:
            return None
        return known if is_whole else None

    def record(self, original: str) -> TunedCopy | None:
        file = self._file(original)
        known = _read(file) if file.exists() else None  # of most models there is none
        is_here = known is not None and (known.original, known.place) == (original, copy_place())
        return known if is_here else None

    def all(self) -> Iterator[TunedCopy]:
        read = map(_read, sorted(self.folder.glob("*.json")))
        known = sorted(filter(None, read), key=lambda copy: copy.name)
        yield from (copy for copy in known if self.find(copy.original) == copy)

    def keep(self, record: TunedCopy) -> None:
        """Write a record; remove a copy that it replaces.

        Raises:
            OSError: the folder cannot be written.
        """
        file = self._file(record.original)
        before = files.read_json_object(file)
        files.write_json_atomically(file, asdict(record), is_durable=True)
        if before.get("path") != record.path:
            self._remove_copy(record.original, before)

    def refuse(self, original: str, why: str) -> None:
        """Replace a copy, which goes, by the reason.

        Raises:
            OSError: the folder cannot be written.
        """
        known = self.record(original)
        if known is not None and not known.why_none:
            self.keep(TunedCopy(known.name, original, known.original_path, known.place, why))

    def remove_copies(self, original: str) -> None:
        before = files.read_json_object(self._file(original))
        self._file(original).unlink(missing_ok=True)
        self._remove_copy(original, before)

    def forget_others(self, is_there: Callable[[TunedCopy], bool]) -> list[str]:
        """Remove records and copies of models that are gone, and those of earlier versions.

        Returns the names of the models whose copies were removed.
        """
        names = []
        for file in sorted(self.folder.glob("*.json")):
            known = _read(file)
            if known is None or not is_there(known):
                before = files.read_json_object(file)
                if before.get("path"):
                    names.append(str(before.get("name")))
                self.remove_copies(file.stem)
        return names

    def ir_weights(self, original: str) -> Path:
        """Return where the weights of a model's IR are; their graph lies beside them."""
        return self.folder / f"{original}.bin"

    def _remove_copy(self, original: str, record: dict[str, object]) -> None:
        """Remove the copy that a record of any version names, if it is one of ours."""
        ir = self.ir_weights(original)
        if record.get("path") != str(ir):
            _remove_blob(record)
            return
        for file in (ir, graph_file(ir)):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def _file(self, original: str) -> Path:
        return self.folder / f"{original}.json"


def graph_file(weights: Path) -> Path:
    return weights.with_suffix(".xml")


def _read(file: Path) -> TunedCopy | None:
    """Return what a file holds; None where it is damaged or of another version."""
    data = files.read_json_object(file)
    return known_record(TunedCopy, data) if "version" in data else None


def _remove_blob(record: dict[str, object]) -> None:
    """Remove the copy that a record of any version names: a blob that no manifest names."""
    path = Path(str(record.get("path") or ""))
    is_blob = path.parent.name == "blobs" and path.name == f"sha256-{record.get('digest')}"
    if not is_blob:
        return
    for manifest in (path.parent.parent / "manifests").glob("*/*/*/*"):
        with suppress(OSError):
            if f"sha256:{record.get('digest')}" in manifest.read_text("utf-8", errors="replace"):
                return
    with suppress(OSError):
        path.unlink()
