"""Cassette: the recorded calls of one test to models and tools, with their replies, as JSON lines.

One file for each test, with a line for each model, each model's token counts and each call. A call
is found by its whole request. The order of lines is stable, so that a diff is easy to review.
`cassette_differences` shows how an unrecorded call differs from the nearest recorded one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from paddock.engine.system.files import read_text, write_output
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import canonical_json

VERSION = 1
MAX_CASSETTE_BYTES = 256 * 1024 * 1024
SHORT_CHARS = 24  # longer texts are stored by hash in token counts
CallKind = Literal["chat", "embed", "tool", "listing"]
CALL_KINDS: tuple[CallKind, ...] = get_args(CallKind)


MODEL_FACTS = ("ref", "digest", "architecture", "ctx", "ctx_train", "takes_tools", "sees_images")
"""Recorded facts of a model."""
_REPLY_FIELDS: Mapping[CallKind, Mapping[str, type]] = {
    "chat": {"text": str, "done_reason": str, "usage": dict},
    "embed": {"vectors": list, "usage": dict},
    "tool": {"results": list},
    "listing": {"results": list},
}
"""Required fields of a reply, unless it is an error."""


class CassetteError(Exception):
    """Unreadable or unwritable cassette; the text has file, line and remedy."""


class RecordedCall(Struct, frozen=True):
    """One call: request (`asked`) and reply (`given`) as plain JSON data."""

    kind: CallKind
    asked: Mapping[str, Any]
    given: Mapping[str, Any]

    @property
    def key(self) -> str:
        return call_key(self.kind, self.asked)


def call_key(kind: CallKind, request: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{kind}\n{canonical_json(request)}".encode()).hexdigest()


class Cassette(Struct, eq=False):
    file: Path
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts of each model, by reference, role and context."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Token counts of texts, by model."""
    calls: dict[str, RecordedCall] = field(default_factory=dict)
    is_there: bool = False
    recorded: list[RecordedCall] = field(default_factory=list)
    """Calls that were made and recorded in this run."""
    _used: set[tuple[str, ...]] = field(default_factory=set)
    """`("call", KEY)`, `("count", MODEL, TEXT)`, `("model", NAME)`: what this run took or added."""

    def find(self, kind: CallKind, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        call = self.calls.get(call_key(kind, request))
        if call is None:
            return None
        self._used.add(("call", call.key))
        return call.given

    def keep(self, kind: CallKind, request: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        call = RecordedCall(kind, request, given)
        self.calls[call.key] = call
        self.recorded.append(call)
        self._used.add(("call", call.key))

    def count(self, model: str, text: str) -> int | None:
        name = count_name(text)
        self._used.add(("count", model, name))
        return self.counts.get(model, {}).get(name)

    def keep_count(self, model: str, text: str, n_tokens: int) -> None:
        name = count_name(text)
        self.counts.setdefault(model, {})[name] = n_tokens
        self._used.add(("count", model, name))

    def model(self, name: str) -> Mapping[str, Any] | None:
        self._used.add(("model", name))
        return self.models.get(name)

    def keep_model(self, name: str, facts: dict[str, Any]) -> None:
        """Record a model's facts; drop the replies of another model of the same name."""
        before = self.models.get(name)
        if before is not None and before["digest"] != facts["digest"]:
            ref = facts["ref"]
            self.calls = {k: v for k, v in self.calls.items() if v.asked.get("model") != ref}
            self.counts.pop(ref, None)
        self.models[name] = facts
        self._used.add(("model", name))

    @property
    def unused(self) -> tuple[RecordedCall, ...]:
        calls = self.calls.items()
        return tuple(call for key, call in calls if ("call", key) not in self._used)

    def of_kind(self, kind: CallKind) -> Iterator[RecordedCall]:
        return (call for call in self.calls.values() if call.kind == kind)

    def write(self, test: str, *, keeps_stale: bool = False) -> bool:
        """Write used calls, with `keeps_stale` also unused ones; return whether the file changed.

        Raises:
            CassetteError: it cannot be written.
        """
        lines = (json.dumps(line, ensure_ascii=False) for line in self._lines(test, keeps_stale))
        text = "".join(f"{line}\n" for line in lines)
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        try:
            if self.is_there and read_text(self.file) == text:
                return False
            write_output(self.file, text)
        except (OSError, UnicodeError) as error:
            raise CassetteError(f"{self.file}: cannot be written: {_error_text(error)}.") from error
        return True

    def _lines(self, test: str, keeps_stale: bool) -> Iterator[Mapping[str, Any]]:
        def is_kept(*name: str) -> bool:
            return keeps_stale or name in self._used

        yield {"cassette": VERSION, "test": test}
        for name, facts in sorted(self.models.items()):
            if is_kept("model", name):
                yield {"kind": "model", "name": name, "facts": facts}
        for model, counts in sorted(self.counts.items()):
            kept = {name: n for name, n in sorted(counts.items()) if is_kept("count", model, name)}
            if kept:
                yield {"kind": "counts", "model": model, "tokens": kept}
        calls = [call for key, call in self.calls.items() if is_kept("call", key)]
        # Sorted, so that the order does not depend on which item came first.
        for call in sorted(
            calls, key=lambda call: (CALL_KINDS.index(call.kind), canonical_json(call.asked))
        ):
            yield {"kind": call.kind, "asked": call.asked, "given": call.given}


def read_cassette(file: Path) -> Cassette:
    """Read a cassette; a missing file is an empty one.

    Raises:
        CassetteError: it cannot be read; the text has the line.
    """
    cassette = Cassette(file)
    try:
        if file.stat().st_size > MAX_CASSETTE_BYTES:
            raise CassetteError(f"{file}: is larger than {MAX_CASSETTE_BYTES // 2**20} MiB.")
        lines = read_text(file).split("\n")  # never at U+2028 and the like
    except FileNotFoundError:
        return cassette
    except (OSError, UnicodeDecodeError) as error:
        raise CassetteError(f"{file}: cannot be read: {_error_text(error)}.") from error
    cassette.is_there = True
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                _add_line(cassette, json.loads(line))
            except CassetteError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
                    what, remedy = "is a merge conflict", "Resolve it, or delete the file"
                else:
                    what, remedy = "is not a line of a cassette", "Delete the file"
                raise CassetteError(
                    f"{file}:{number}: {what}. {remedy}, and record it again with `--record`."
                ) from error
    return cassette


def _add_line(cassette: Cassette, line: dict[str, Any]) -> None:
    if "cassette" in line:
        if line["cassette"] != VERSION:
            raise CassetteError(
                f"{cassette.file}: was recorded by another version of Paddock "
                f"(format {line['cassette']}, this version reads {VERSION}). "
                f"Record it again with `--record`."
            )
    elif line["kind"] == "model":
        cassette.models[line["name"]] = {name: line["facts"][name] for name in MODEL_FACTS}
    elif line["kind"] == "counts":
        cassette.counts.setdefault(line["model"], {}).update(_checked_counts(line["tokens"]))
    elif line["kind"] in CALL_KINDS:
        call = RecordedCall(line["kind"], line["asked"].copy(), line["given"].copy())
        if "error" not in call.given:  # a file that was edited by hand may have invalid replies
            for name, kind in _REPLY_FIELDS[call.kind].items():
                if not isinstance(call.given[name], kind):
                    raise TypeError(name)
            _checked_counts(call.given.get("usage", {}))
            if not call.given.get("results", True):
                raise ValueError("a call without a result")
        cassette.calls[call.key] = call
    else:
        raise KeyError(line["kind"])


def _checked_counts(counts: dict[str, int]) -> dict[str, int]:
    if not all(isinstance(n, int) for n in counts.values()):
        raise TypeError("a count")
    return counts


def _error_text(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return error.strerror or str(error)


def count_name(text: str) -> str:
    """Return the key of a text in token counts: short texts as they are, others by hash."""
    if len(text) <= SHORT_CHARS:
        return text
    return f"#{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def variant_cassette(cassette: Path, values: str) -> Path:
    """Return a cassette of the same test with other values; one name for each set of them.

    >>> variant_cassette(Path("bills.two.jsonl"), "clerk=qwen3:8b").name
    'bills.two.clerk-qwen3-8b-ef8482.jsonl'
    """
    digest = hashlib.sha256(values.encode()).hexdigest()[:6]
    return cassette.with_name(f"{cassette.stem}.{_slug(values)}-{digest}.jsonl")


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:60]


def cassette_file_names(stem: str, tests: Iterable[str]) -> dict[str, str]:
    """Return the file name of each test's cassette.

    >>> cassette_file_names("digest", ["Two documents, no model", "été"])
    {'Two documents, no model': 'digest.two-documents-no-model.jsonl', 'été': 'digest.été.jsonl'}
    """
    slugs = {test: _slug(test) for test in tests}
    n_of = Counter(slugs.values())
    apart = {test: hashlib.sha256(test.encode()).hexdigest()[:6] for test in slugs}
    return {
        test: f"{stem}.{slug}.jsonl"
        if slug and n_of[slug] == 1
        else f"{stem}.{slug or 'test'}-{apart[test]}.jsonl"
        for test, slug in slugs.items()
    }
