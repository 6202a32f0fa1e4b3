"""Words for messages, shortened and counted; texts and references in plain data; lines of bytes."""

from __future__ import annotations

import json
import shlex
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, count
from typing import Any


def shorten(text: str, n_most: int) -> str:
    """Return the text, or its beginning and '…': at most `n_most` characters in all.

    >>> shorten("a long sentence", 7), shorten("short", 7)
    ('a long…', 'short')
    """
    return text if len(text) <= n_most else f"{text[: n_most - 1]}…"


def shell_command(*words: object) -> str:
    """Return a command as a person types it, with quotes around what a shell would take apart.

    >>> shell_command("sqlite3", "$(id).db")
    "sqlite3 '$(id).db'"
    """
    return shlex.join(map(str, words))


def one_line(text: str, n_most: int | None = None) -> str:
    r"""Return the text with each run of white space as one space, shortened to `n_most` characters.

    >>> one_line("a\n  b\tc"), one_line("a\n  b\tc", 4)
    ('a b c', 'a b…')
    """
    line = " ".join(text.split())
    return line if n_most is None else shorten(line, n_most)


def last_part(text: str, n_most: int) -> str:
    r"""Return the text as one line; of a longer one '…' and its last `n_most` characters.

    >>> last_part("Traceback:\n  no such file", 4), last_part("no", 4)
    ('…file', 'no')
    """
    line = one_line(text)
    return line if len(line) <= n_most else f"…{line[-n_most:]}"


def without_middle(text: str, n_characters: int, mark: str = "\n[…]\n") -> str:
    """Return `n_characters` of a text, three quarters from the beginning, the rest from the end.

    >>> without_middle("abcdefgh", 4, "-")
    'abc-h'
    """
    if n_characters >= len(text):
        return text
    head = n_characters * 3 // 4
    return text[:head] + mark + text[len(text) - (n_characters - head) :]


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "document"), counted(12000, "document"), counted(2, "reply", "replies")
    ('1 document', '12,000 documents', '2 replies')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"


def listed(words: Sequence[str], n_most: int = 5) -> str:
    """Return words with commas; how many more there are than `n_most`.

    >>> listed(["a", "b", "c"], 2), listed(["a", "b"])
    ('a, b and 1 more', 'a, b')
    """
    shown = ", ".join(words[:n_most])
    return shown if len(words) <= n_most else f"{shown} and {len(words) - n_most:,} more"


def free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or that with the first number that makes it free.

    >>> free_name("a.pdf", ["a.pdf", "a.pdf#2"])
    'a.pdf#3'
    """
    numbered = (f"{name}#{n}" for n in count(2))
    return next(text for text in chain([name], numbered) if text not in taken)


def sql_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def same_in_sql(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that are one in SQL, where the case of ASCII letters does not count.

    >>> same_in_sql(["Total", "total"]), same_in_sql(["\u00c9", "\u00e9"])
    (('Total', 'total'), None)
    """
    seen = dict[bytes, str]()
    for name in names:
        if (other := seen.setdefault(name.encode("utf-8", "replace").lower(), name)) != name:
            return other, name
    return None


def is_utf8(text: str) -> bool:
    """Return whether a name is UTF-8; other bytes were decoded as surrogates."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def text_or_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def cell_text(value: Any) -> str:
    """Return a value as a cell or a field shows it: texts plain, null empty, the rest as JSON.

    >>> cell_text("a"), cell_text(None), cell_text(True), cell_text([1])
    ('a', '', 'true', '[1]')
    """
    return "" if value is None else text_or_json(value)


def json_size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace"))


_LEAST_BYTES, _NAME_BYTES = 16, 128
_FRAME_BYTES = 40  # brackets, and how many members are left out


def fit_json(value: Any, n_bytes: int) -> Any:
    """Return a value that takes at most `n_bytes` as JSON, 16 or more; itself if it does already.

    Members share the room: what needs less than its share is whole, and leaves the rest to others.

    >>> fit_json({"n": 3, "texts": ["a" * 200, "b"]}, 160)
    {'n': 3, 'texts': ['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…', 'b']}
    >>> fit_json([*range(99)], 80)
    [0, 1, '… 97 more']
    """
    if json_size(value) <= n_bytes:
        return value
    is_mapping = isinstance(value, Mapping)
    if not (is_mapping or isinstance(value, list | tuple)) or n_bytes < _FRAME_BYTES:
        return _fit_text(value, n_bytes) if isinstance(value, str) else "…"
    names = [fit_json(str(name), _NAME_BYTES) for name in value] if is_mapping else []
    inner = list(value.values() if is_mapping else value)
    used = list(accumulate([4 + json_size(name) for name in names] or [2] * len(inner)))
    left = n_bytes - _FRAME_BYTES
    n_kept = sum(size + _LEAST_BYTES * n <= left for n, size in enumerate(used, start=1))
    left -= used[n_kept - 1] if n_kept else 0
    kept = inner[:n_kept]
    for n, at in enumerate(sorted(range(n_kept), key=lambda at: json_size(inner[at]))):
        kept[at] = fit_json(inner[at], left // (n_kept - n))
        left -= json_size(kept[at])
    omitted = f"{len(inner) - n_kept:,} more"
    if is_mapping:
        return dict(zip(names, kept, strict=False)) | (
            {"…": omitted} if n_kept < len(inner) else {}
        )
    return [*kept, f"… {omitted}"] if n_kept < len(inner) else kept


def _fit_text(text: str, n_bytes: int) -> str:
    def size(n_chars: int) -> int:
        return json_size(shorten(text, n_chars))

    return shorten(text, bisect_right(range(1, len(text) + 1), n_bytes, key=size))


_AS_GIVEN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def canonical_json(value: Any) -> str:
    return _SORTED.encode(value)


def ordered_json(value: Any) -> str:
    """Return plain data as JSON with names in their order, which a table or a prompt may show."""
    return _AS_GIVEN.encode(value)


def path_text(keys: Iterable[str | int]) -> str:
    r"""Return the path of a field as people read and write it; dots of a name get a backslash.

    >>> path_text(("items", 0, "price")), path_text(("a.b", "c"))
    ('items.0.price', 'a\\.b.c')
    """
    return ".".join(str(key).replace(".", "\\.") for key in keys)


def has_json_type(value: Any, kind: Any) -> bool:
    """Return whether a value has a type of JSON Schema; None: any."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str, "boolean": bool, "null": type(None), "array": list, "object": dict,
        "number": (int, float), "integer": (int, float),
    }  # fmt: skip
    if kind in ("number", "integer") and isinstance(value, bool):
        return False
    is_right = kind is None or isinstance(value, kinds.get(str(kind), ()))
    return is_right and (kind != "integer" or value % 1 == 0)


def resolve_ref(schema: Any, ref: str) -> Any:
    """Return what a `$ref` within a schema is; None if it leads outside.

    >>> resolve_ref({"$defs": {"a/b": {"type": "string"}}}, "#/$defs/a~1b")
    {'type': 'string'}
    >>> resolve_ref({"$defs": {"a": {"$anchor": "b", "const": 1}}}, "#b")
    {'$anchor': 'b', 'const': 1}
    """
    path = ref.lstrip("#")
    if path and not path.startswith("/"):
        waiting = [schema]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict) and node.get("$anchor") == path:
                return node
            inner = node.values() if isinstance(node, dict) else node
            waiting += inner if isinstance(node, dict | list) else ()
        return None
    for part in path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return None
    return schema


def completed_lines(rest: bytes, piece: bytes) -> tuple[list[bytes], bytes]:
    r"""Return the lines that `piece` completes, and the new rest; only `\n` ends a line.

    >>> completed_lines(b"a", b"b\nc\r\nd")
    ([b'ab', b'c\r'], b'd')
    """
    *lines, rest = (rest + piece).split(b"\n")
    return lines, rest


def nested_values(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield plain data and all that is within it, each with its path.

    >>> [path for path, _ in nested_values({"a": [1]})]
    [(), ('a',), ('a', 0)]
    """
    yield path, value
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    for name, inner in pairs:
        yield from nested_values(inner, (*path, name))


def find_all(part: str, text: str, step: int = 0) -> Iterator[int]:
    """Yield where a part is in a text; `step`: how much further on the next may be, else behind it.

    >>> [*find_all("aa", "aaaa")], [*find_all("aa", "aaaa", 1)]
    ([0, 2], [0, 1, 2])
    """
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + (step or len(part)))


def encodable(text: str) -> str:
    """Return a text with lone surrogates, as of a file's name, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with every text changed, names of members too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(name)): map_texts(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(item, change) for item in value]
    return value


MOST_JSON_LEVELS = 128
"""Recursive functions take up to three frames a level, of Python's 1,000."""


class NestedTooDeep(ValueError):
    def __init__(self) -> None:
        super().__init__("it is nested too deeply")


def parse_shallow_json(text: str | bytes, **options: Any) -> Any:
    """Return the value of JSON that others wrote.

    Python 3.11 itself refuses some 1,000 levels, 3.13 some 10,000.

    Raises:
        ValueError: it is no JSON; `NestedTooDeep`: it has more than `MOST_JSON_LEVELS` levels.
    """
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise NestedTooDeep from None
    if not is_shallow(value, MOST_JSON_LEVELS):
        raise NestedTooDeep
    return value


def is_shallow(value: Any, n_levels: int) -> bool:
    """Return whether lists and objects are nested so little that recursive functions can read them.

    >>> is_shallow([[{"a": 1}]], 3), is_shallow([[{"a": 1}]], 2)
    (True, False)
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(n_levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False
