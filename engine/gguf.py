"""GGUF headers: read them, and check that a file is complete. Without llama_cpp.

llama.cpp ends the process on some broken files, so a file is checked here first. Only scalars,
strings and short arrays are kept, unless all are wanted. The format is
described in github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from paddock.engine.system.records import Struct, field, replace

from .errors import ModelBroken
from .model_file_parts import check_magic
from .system.no_links import open_file

GgufScalar = str | int | float | bool

_SCALARS: dict[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
ALIGNMENT = 32
"""Bytes, where a file names no other alignment."""

# Elements and bytes of one block of each tensor type (ggml.h, `ggml_type`); of other types only
# the beginning is checked.
TYPE_BLOCKS: dict[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip

# Names of those types in llama.cpp's tools.
TYPE_NAMES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    20: "IQ4_NL", 23: "IQ4_XS", 28: "F64", 30: "BF16", 39: "MXFP4",
}  # fmt: skip

# Names of files' formats (llama.h, `llama_ftype`) by their number in `general.file_type`.
FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip

# Prefix, suffix and middle tokens by model family (llama.cpp, src/llama-vocab.cpp).
_FILL_IN_MIDDLE_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
)
# Most embedding models name their kind of pooling; these are known by their architecture.
_RANK_POOLING = 4  # LLAMA_POOLING_TYPE_RANK
_EMBEDDING_ARCHITECTURES = (
    "bert", "nomic-bert", "jina-bert", "modern-bert", "t5encoder", "gemma-embedding",
)  # fmt: skip

# llama.cpp ends the process where a head is incomplete or of an architecture that it half knows:
# only these are used, of which `tests/fakes/tiny.py` writes one each.
_MTP_ARCHITECTURES = ("deepseek2", "glm4moe", "hy_v3", "qwen35", "qwen35moe")

SAMPLING_KEYS = "general.sampling."
FILE_SAMPLING: dict[str, str] = {
    SAMPLING_KEYS + "temp": "temperature",
    SAMPLING_KEYS + "top_k": "top_k",
    SAMPLING_KEYS + "top_p": "top_p",
    SAMPLING_KEYS + "min_p": "min_p",
    SAMPLING_KEYS + "penalty_last_n": "repeat_last_n",
    SAMPLING_KEYS + "penalty_repeat": "repeat_penalty",
}
"""Sampling values of a file, by our names. llama-server also obeys `sequence`, `mirostat*` and
`xtc_*`: the order of samplers is fixed here, and neither of these is among them."""
SUPPRESSED = "tokenizer.ggml.suppress_tokens"
"""Tokens that are never said; llama.cpp reads them itself (`Model.suppressed_tokens`)."""
_MAX_SUPPRESSED = 4096

_TOKENS = "tokenizer.ggml.tokens"
_LENGTH = struct.Struct("<Q")

# Longer arrays belong to the vocabulary or have one number per layer: not kept.
_MAX_SHORT_ITEMS = 5

# Files are untrusted, and a count of a few bytes can ask for any amount of work. The largest real
# models have some 2,000 tensors, 100 values and vocabularies of 300,000.
MAX_TENSORS = 65_536
MAX_VALUES = 16_384
MAX_NAME_BYTES = 65_535  # the format's own limit of a key
MAX_TEXT_BYTES = 64 * 1024 * 1024  # of all values; a tokenizer as JSON has 20 MiB
MAX_ARRAY_ITEMS = 8_000_000  # of all arrays whose items are read one by one


class GgufTensor(Struct, frozen=True):
    name: str
    kind: int
    """ggml's number of its type; see `TYPE_NAMES`."""
    axes: tuple[int, ...]
    """In ggml's order: the axis with the smallest stride first."""
    offset: int = 0
    """Its first byte, counted from `GgufHeader.data_at`."""

    @property
    def n_weights(self) -> int:
        return math.prod(self.axes)

    @property
    def n_bytes(self) -> int:
        per_block, block_bytes = TYPE_BLOCKS.get(self.kind, (1, 0))
        return self.n_weights // per_block * block_bytes


class GgufHeader(Struct, frozen=True):
    version: int
    n_tensors: int
    values: dict[str, GgufScalar]
    array_lengths: dict[str, int]
    tensors: tuple[GgufTensor, ...] = ()
    tensors_at: int = 0
    """Byte where the descriptions of the tensors begin, right after the values."""
    data_at: int = 0
    """Byte where the first tensor begins."""
    arrays: dict[str, tuple[GgufScalar, ...]] = field(default_factory=dict)
    """Short arrays: at most five items; of `SUPPRESSED`, 4,096."""
    fill_in_middle_tokens: tuple[str, str, str] | None = None
    """Texts of the prefix, suffix and middle tokens in the vocabulary."""

    @property
    def alignment(self) -> int:
        """Bytes of whose multiples each tensor's place is one."""
        value = self.values.get("general.alignment")
        return value if isinstance(value, int) and value > 0 else ALIGNMENT

    @property
    def file_type(self) -> str:
        """The format of most of it, such as `Q4_K_M`; `unknown` if its number is new."""
        kind = self.values.get("general.file_type")
        return FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "unknown"

    @property
    def sampling(self) -> dict[str, GgufScalar]:
        """Sampling values by our names, unchecked; with six decimals, as llama.cpp reads them."""
        found = ((FILE_SAMPLING.get(key), value) for key, value in self.values.items())
        return {name: round(n, 6) if isinstance(n, float) else n for name, n in found if name}

    @property
    def n_weights(self) -> int:
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", "unknown"))

    @property
    def n_parts(self) -> int:
        n_parts = self.values.get("split.count", 1)
        return max(1, n_parts) if isinstance(n_parts, int) else 1

    @property
    def part(self) -> int:
        """Number of this file among the parts, from 0."""
        number = self.values.get("split.no", 0)
        return number if isinstance(number, int) else 0

    @property
    def role(self) -> Literal["chat", "embed", "rerank"]:
        pooling = self.number("pooling_type")
        if pooling == _RANK_POOLING:
            return "rerank"
        is_embedder = pooling > 0 or self.is_encoder
        return "embed" if is_embedder else "chat"

    @property
    def decides_by(self) -> str:
        """The layers by which a model that writes no text decides; empty: it is none of these."""
        return str(self.values.get(f"{self.architecture}.decision.type", ""))

    @property
    def is_encoder(self) -> bool:
        """Whether it is an embedding model without a KV cache, whose tokens have no logits."""
        return self.architecture.startswith(_EMBEDDING_ARCHITECTURES)

    @property
    def has_mtp(self) -> bool:
        """Whether its last layer guesses tokens ahead (multi-token prediction), and can be used."""
        projection = f"blk.{self.number('block_count') - 1}.nextn.eh_proj.weight"
        is_old = self.architecture == "deepseek2" and not (
            self.number("attention.key_length_mla") and self.number("attention.q_lora_rank")
        )
        return (
            self.architecture in _MTP_ARCHITECTURES
            and self.number("nextn_predict_layers") == 1
            and any(tensor.name == projection for tensor in self.tensors)
            and not is_old
        )

    def number(self, key: str, default: int = 0) -> int:
        """Return an architecture's number, such as `block_count`; `default` if it is absent."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        return value if isinstance(value, int) else default


def padded(n_bytes: int, alignment: int = ALIGNMENT) -> int:
    return -(-n_bytes // alignment) * alignment


def tensor_table(tensors: Sequence[GgufTensor], alignment: int = ALIGNMENT) -> bytes:
    """Return the part of a header that describes these tensors, stored one after the other."""
    table, at = bytearray(), 0
    for tensor in tensors:
        name = tensor.name.encode()
        table += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.axes))
        table += struct.pack(f"<{len(tensor.axes)}QIQ", *tensor.axes, tensor.kind, at)
        at += padded(tensor.n_bytes, alignment)
    return bytes(table)


class _FileTooShort(Exception):
    pass


class _LimitExceeded(Exception):
    """The end of a sentence about what exceeds a limit."""


class _GgufReader(Struct, eq=False):
    data: mmap.mmap
    at: int = 0
    _text_bytes: int = 0
    _n_items: int = 0

    def take(self, n_bytes: int) -> bytes:
        if n_bytes < 0 or self.at + n_bytes > len(self.data):
            raise _FileTooShort
        piece = self.data[self.at : self.at + n_bytes]
        self.at += n_bytes
        return piece

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def name(self) -> str:
        n_bytes = self.number("<Q")
        if n_bytes > MAX_NAME_BYTES:
            raise _LimitExceeded(f"a name of {n_bytes:,} bytes")
        return self.take(n_bytes).decode("utf-8", errors="replace")

    def string(self) -> str:
        n_bytes = self.number("<Q")
        self._text_bytes += n_bytes
        if self._text_bytes > MAX_TEXT_BYTES:
            raise _LimitExceeded(f"texts of more than {MAX_TEXT_BYTES // 2**20} MiB")
        return self.take(n_bytes).decode("utf-8", errors="replace")

    def _count(self, n_items: int) -> None:
        self._n_items += n_items
        if self._n_items > MAX_ARRAY_ITEMS:
            raise _LimitExceeded(f"arrays of more than {MAX_ARRAY_ITEMS:,} items")

    def value(self, kind: int) -> GgufScalar:
        if kind == _STRING:
            return self.string()
        form = _SCALARS[kind]
        scalar: GgufScalar = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return scalar

    def skip_array(self) -> int:
        kind, n_items = self.number("<I"), self.number("<Q")
        if kind == _STRING:
            self._count(n_items)
            # Skip strings; a vocabulary has hundreds of thousands, so the loop is minimal.
            length, data, at = _LENGTH.unpack_from, self.data, self.at
            try:
                for _ in range(n_items):
                    at += 8 + length(data, at)[0]
            except (struct.error, OverflowError):
                raise _FileTooShort from None
            if at > len(data):
                raise _FileTooShort
            self.at = at
        elif kind == _ARRAY:
            self._count(n_items)
            for _ in range(n_items):
                self.skip_array()
        else:
            n_bytes = struct.calcsize(_SCALARS[kind]) * n_items
            if n_bytes > len(self.data) - self.at:
                raise _FileTooShort
            self.at += n_bytes
        return n_items

    def array(self) -> tuple[GgufScalar, ...]:
        """Read an array of scalars or strings; an array of arrays is skipped and empty."""
        kind, n_items = self.number("<I"), self.number("<Q")
        if kind == _ARRAY:
            self.at -= 12
            self.skip_array()
            return ()
        self._count(n_items)
        if kind == _STRING:
            return tuple(self.string() for _ in range(n_items))
        form = _SCALARS[kind]
        raw = self.take(struct.calcsize(form) * n_items)
        return tuple(number for (number,) in struct.iter_unpack(form, raw))


def join_headers(headers: Sequence[GgufHeader]) -> GgufHeader:
    first, *others = headers
    if not others:
        return first
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return replace(first, n_tensors=len(tensors), tensors=tensors)


def read_header(path: Path, *, has_all_arrays: bool = False) -> GgufHeader:
    """Read the header and check that every tensor is within the file.

    Only short arrays are read, unless `has_all_arrays`: half a second for a large vocabulary.

    Raises:
        ModelBroken: the file is not GGUF, truncated or corrupt; with the path and the reason.
    """
    try:
        with open_file(path, follows_links=True) as file:
            n_bytes = path.stat().st_size
            if n_bytes < 24:
                raise ModelBroken(str(path), f"too short for a model ({n_bytes} bytes)")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                check_magic(str(path), data[:4])
                reader = _GgufReader(data, 4)
                return _read(path, reader, has_all_arrays)
    except OSError as error:
        why = f"the file cannot be read: {error.strerror or error}"
    except _FileTooShort:
        why = f"the file is truncated: it ends at byte {n_bytes} inside its header"
    except RecursionError:
        why = "the file is corrupt: arrays within arrays"
    except _LimitExceeded as error:
        why = f"the file is corrupt: its header has {error}"
    except KeyError as error:
        why = f"the file is corrupt: unknown value type {error} near byte {reader.at}"
    raise ModelBroken(str(path), why)


def _read(path: Path, reader: _GgufReader, has_all_arrays: bool) -> GgufHeader:
    version = reader.number("<I")
    if version not in (2, 3):
        raise ModelBroken(str(path), f"GGUF version {version} is not one that is known (2 and 3)")
    n_tensors, n_values = reader.number("<Q"), reader.number("<Q")
    if n_tensors > MAX_TENSORS:
        raise _LimitExceeded(f"{n_tensors:,} tensors, and {MAX_TENSORS:,} are the most")
    if n_values > MAX_VALUES:
        raise _LimitExceeded(f"{n_values:,} values, and {MAX_VALUES:,} are the most")
    values: dict[str, GgufScalar] = {}
    lengths: dict[str, int] = {}
    arrays: dict[str, tuple[GgufScalar, ...]] = {}
    fill_in_middle_tokens = None
    for _ in range(n_values):
        key, kind = reader.name(), reader.number("<I")
        if kind != _ARRAY:
            values[key] = reader.value(kind)
            continue
        begin = reader.at
        lengths[key] = int(_LENGTH.unpack_from(reader.take(12), 4)[0])
        reader.at = begin
        most_items = _MAX_SUPPRESSED if key == SUPPRESSED else _MAX_SHORT_ITEMS
        if has_all_arrays or lengths[key] <= most_items:
            arrays[key] = reader.array()
        else:
            reader.skip_array()
        if key == _TOKENS:
            fill_in_middle_tokens = _find_fill_in_middle_tokens(reader.data, begin, reader.at)
    tensors_at = reader.at
    tensors = tuple(_read_tensor(path, reader) for _ in range(n_tensors))
    header = GgufHeader(
        version,
        n_tensors,
        values,
        lengths,
        tensors,
        tensors_at,
        arrays=arrays,
        fill_in_middle_tokens=fill_in_middle_tokens,
    )
    data_at = padded(reader.at, header.alignment)
    _check_ends(path, len(reader.data) - data_at, len(reader.data), tensors)
    return replace(header, data_at=data_at)


def _find_fill_in_middle_tokens(
    data: mmap.mmap, begin: int, end: int
) -> tuple[str, str, str] | None:
    """Return the fill-in-the-middle tokens of the vocabulary between two places, if any."""

    def is_there(text: str) -> bool:
        raw = text.encode()
        return data.find(_LENGTH.pack(len(raw)) + raw, begin, end) >= 0

    return next((marks for marks in _FILL_IN_MIDDLE_TOKENS if all(map(is_there, marks))), None)


def _read_tensor(path: Path, reader: _GgufReader) -> GgufTensor:
    name, n_axes = reader.name(), reader.number("<I")
    if n_axes > 8:
        raise ModelBroken(str(path), f"the file is corrupt: tensor '{name}' has {n_axes} axes")
    axes = tuple(reader.number("<Q") for _ in range(n_axes))
    return GgufTensor(name, reader.number("<I"), axes, reader.number("<Q"))


def _check_ends(path: Path, n_data: int, n_file: int, tensors: tuple[GgufTensor, ...]) -> None:
    if not tensors:
        return
    end, name = max((tensor.offset + tensor.n_bytes, tensor.name) for tensor in tensors)
    if end > n_data:
        raise ModelBroken(
            str(path),
            f"the file is truncated: tensor '{name}' ends at byte {n_file - n_data + end}, "
            f"but the file has {n_file}",
        )
