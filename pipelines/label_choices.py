"""`choose` in `reply.schema`: fields whose values are the labels of a list that only a run knows.

Until then a stand-in with the keys as written is in the schema (`CHOOSE`); `schema_with_labels`
puts an `enum` of the labels in its place. What is a label of a list, and what is wrong with a list,
is decided here.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import listed, one_line

from .errors import did_you_mean, kind_of
from .expressions import Expression, ExpressionError, Path
from .keys import ChooseKeys

CHOOSE = "x-choose"
"""Marks the schema of such a field; a keyword without effect."""
ONCE = "x-once"
"""Marks a list in which no label counts twice; no decoder can enforce that."""
_STAND_IN = {"enum": ["label"]}
MOST_LABELS = 20_000
"""In one list; their constraint was compiled in 1.0 s on two busy cores."""
_MOST_LABEL_CHARS = 200
_SHORT_LIST_CHARS = 300
"""Of labels without descriptions: these are told with the form of the answer, as an `enum` is."""
_SHOWN_CHARS = 60
_UNSAYABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of control characters, line breaks and halves of surrogate pairs."""
_VARIATIONS = range(0xFE00, 0xFE10)

FieldPath: TypeAlias = tuple[str, ...]
"""The names that lead to a field of an answer, whatever lists are on the way."""


class WrongLabels(ValueError):
    """A list that no field can be chosen from: what is wrong, and what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


class Choice(Struct, frozen=True):
    at: Path
    source: Expression
    keys: ChooseKeys

    @property
    def field(self) -> FieldPath:
        return tuple(name for name in self.at if isinstance(name, str))

    @property
    def shown(self) -> str:
        """The field with dots, as in `items.tag`; two fields may have the same."""
        return ".".join(self.field)


def read_choice(data: Mapping[str, Any], at: Path) -> tuple[Any, Choice]:
    """Return the schema of a chosen field, with a stand-in for its labels, and what was written.

    Raises:
        WrongLabels: a key is unknown or wrong, or the expression cannot be read.
    """
    try:
        keys = ChooseKeys.model_validate(data)
        source = Expression.of(keys.choose)
    except ValidationError as error:
        raise _wrong_key(error.errors(include_url=False)[0], data) from None
    except ExpressionError as error:
        raise WrongLabels(error.message, error.remedy) from None
    if keys.unknown is not None:
        _refuse_unsayable(keys.unknown, "`unknown`")
    choice = Choice(at, source, keys)
    written = keys.model_dump(exclude_none=True, exclude={"relabel"})
    node: Any = {**_STAND_IN, CHOOSE: written | {"field": [*choice.field]}}
    if keys.most is not None:
        node = {"type": "array", "items": node, "maxItems": keys.most, ONCE: True}
    return node, choice


def _wrong_key(error: Any, data: Mapping[str, Any]) -> WrongLabels:
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        known = ("choose", *(key for key in ChooseKeys.model_fields if key != "choose"))
        return WrongLabels(f"`choose` has no key '{name}'", did_you_mean(name, known))
    if error["type"] == "value_error":
        return WrongLabels(str(error["ctx"]["error"]))
    words = {
        "unknown": "a text that is not empty",
        "most": "a whole number above 0",
        "narrow": "a whole number above 1",
        "relabel": "'affected' or 'all'",
    }
    shown = one_line(str(data.get(name)), _SHOWN_CHARS)
    remedy = "Read a file with `files.rows`, and name its `rows`." if name == "choose" else ""
    return WrongLabels(f"`{name}` must be {words.get(name, 'a text')}; it is '{shown}'", remedy)


class LabelList(Struct, frozen=True):
    source: str
    """The expression that names it."""
    labels: Mapping[str, str]
    """Each label with its description, which may be empty."""
    digest: str
    """Of the labels in any order."""
    ordered_digest: str
    relabels_all: bool = False
    """Whether any change of it makes every item stale."""

    @classmethod
    def of(cls, value: Any, choice: Choice) -> LabelList:
        """Return the labels of a list of texts or rows.

        Raises:
            WrongLabels: it is no such list, is empty, or labels are the same or nearly so.
        """
        source, keys = choice.source.source, choice.keys
        if not isinstance(value, list):
            what = f"'{source}' is {kind_of(value)}, not a list of texts or rows"
            raise WrongLabels(what, "Read a table with `files.rows`, and name its `rows`.")
        if not value:
            raise WrongLabels(f"'{source}' is an empty list: there is no label to choose")
        if len(value) > MOST_LABELS:
            what = f"'{source}' has {len(value):,} labels; at most {MOST_LABELS:,} can be chosen"
            remedy = "Choose in two steps: a group of labels, then one of that group's."
            raise WrongLabels(f"{what} from", remedy)
        pairs = [_pair(element, n, source, keys) for n, element in enumerate(value, 1)]
        _refuse_alike([label for label, _ in pairs], source, keys.unknown)
        texts = (json.dumps(order, ensure_ascii=False) for order in (sorted(pairs), pairs))
        digest, ordered = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)
        return cls(source, dict(pairs), digest, ordered, keys.relabel == "all")

    @property
    def recorded_digest(self) -> str:
        """What the ledger keeps of it."""
        return self.ordered_digest if self.relabels_all else self.digest

    def new_to(self, before: Iterable[Mapping[str, str]]) -> dict[str, str]:
        """Return the labels that one of its former states had not."""
        new = set().union(*(self.labels.keys() - labels.keys() for labels in before))
        return {label: words for label, words in self.labels.items() if label in new}

    def part(self, labels: Sequence[str]) -> LabelList:
        return replace(self, labels={label: self.labels[label] for label in labels})

    @property
    def is_short(self) -> bool:
        is_plain = not any(self.labels.values())
        return is_plain and sum(len(label) + 4 for label in self.labels) <= _SHORT_LIST_CHARS


def _pair(element: Any, number: int, source: str, keys: ChooseKeys) -> tuple[str, str]:
    label, words = element, ""
    if isinstance(element, Mapping):
        if keys.by is None:
            remedy = f"Add `by` with the column of the label: {listed([*map(str, element)], 5)}."
            raise WrongLabels(f"'{source}' is a list of rows", remedy)
        label = _cell(element, keys.by, "by", number, source)
        if keys.describe is not None:
            found = _cell(element, keys.describe, "describe", number, source)
            words = one_line(str(found)) if found is not None else ""
            if words:
                _refuse_unsayable(words, f"the description of label {number} of '{source}'")
    elif keys.by is not None:
        raise WrongLabels(
            f"`by` names a column, but element {number} of '{source}' is {kind_of(element)}",
            "Leave out `by` where the list has texts.",
        )
    if not isinstance(label, str) or not label.strip():
        what = "empty" if isinstance(label, str) or label is None else kind_of(label)
        raise WrongLabels(f"label {number} of '{source}' is {what}; a label is a text")
    if len(label) > _MOST_LABEL_CHARS:
        shown = one_line(label, _SHOWN_CHARS)
        raise WrongLabels(
            f"label {number} of '{source}' has {len(label):,} characters, and at most "
            f"{_MOST_LABEL_CHARS} can be chosen: '{shown}'"
        )
    _refuse_unsayable(label, f"label {number} of '{source}'")
    return label, words


def _refuse_unsayable(text: str, what: str) -> None:
    if any(unicodedata.category(char) in _UNSAYABLE for char in text):
        shown = one_line("".join(map(_visible, text)), _SHOWN_CHARS)
        raise WrongLabels(
            f"{what} has a line break, a control character or half of a surrogate pair: '{shown}'",
            "Remove it.",
        )
    if not _look(text):
        raise WrongLabels(f"{what} has only characters that cannot be seen")


def _visible(char: str) -> str:
    return f"<U+{ord(char):04X}>" if unicodedata.category(char) in {*_UNSAYABLE, "Cf"} else char


def _look(text: str) -> str:
    """Return what texts have in common that people and models cannot tell apart."""
    seen = (
        char for char in text if unicodedata.category(char) != "Cf" and ord(char) not in _VARIATIONS
    )
    folded = unicodedata.normalize("NFKC", "".join(seen)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _cell(row: Mapping[str, Any], column: str, key: str, number: int, source: str) -> Any:
    if column not in row:
        what = f"`{key}`: row {number} of '{source}' has no column '{column}'"
        raise WrongLabels(what, did_you_mean(column, [*map(str, row)]))
    return row[column]


def _refuse_alike(labels: Sequence[str], source: str, unknown: str | None) -> None:
    """Refuse labels that are the same, or that people and models cannot tell apart."""
    seen: dict[str, tuple[str, int]] = {}
    for number, label in enumerate(labels, 1):
        first, place = seen.setdefault(_look(label), (label, number))
        if place == number:
            continue
        if first == label:
            what = f"'{source}' has the label '{label}' twice, as number {place} and {number}"
            raise WrongLabels(what, "Remove one of them.")
        folded = {" ".join(text.split()).casefold() for text in (first, label)}
        by = "case or space" if len(folded) == 1 else "the form or by invisible characters"
        shown = [f"'{''.join(map(_visible, text))}'" for text in (first, label)]
        raise WrongLabels(
            f"the labels {' and '.join(shown)} of '{source}' (numbers {place} and {number}) "
            f"differ by {by} only",
            "Keep one of them.",
        )
    if unknown is not None and _look(unknown) in seen:
        what = f"`unknown`: '{unknown}' is a label of '{source}' as well"
        raise WrongLabels(what, "Choose other words.")


def schema_with_labels(schema: Any, lists: Mapping[FieldPath, LabelList]) -> Any:
    """Return a schema with an `enum` of labels for each chosen field; `lists` are by field.

    A field of a long list stays marked: its labels are shown elsewhere.
    """
    if isinstance(schema, list):
        return [schema_with_labels(child, lists) for child in schema]
    if not isinstance(schema, dict):
        return schema
    written = schema.get(CHOOSE)
    found = lists.get(tuple(written["field"])) if isinstance(written, dict) else None
    if written is None or found is None:
        return {name: schema_with_labels(child, lists) for name, child in schema.items()}
    unknown = written.get("unknown")
    enum = [*found.labels, *([unknown] if unknown is not None else [])]
    return {"enum": enum} if found.is_short else {"enum": enum, CHOOSE: written}


def is_stand_in(part: Mapping[str, Any]) -> bool:
    """Return whether a part of a schema stands for labels that are not known yet."""
    return CHOOSE in part and part.get("enum") == _STAND_IN["enum"]


def chosen_labels(output: Any, field: FieldPath) -> list[str]:
    """Return the labels that an answer has in a field, also in lists of it.

    >>> chosen_labels({"items": [{"tag": "a"}, {"tag": ["b", "c"]}]}, ("items", "tag"))
    ['a', 'b', 'c']
    """
    return [label for label in _values_at(output, field) if isinstance(label, str)]


def _values_at(value: Any, names: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for child in value:
            yield from _values_at(child, names)
    elif not names:
        yield value
    elif isinstance(value, Mapping) and names[0] in value:
        yield from _values_at(value[names[0]], names[1:])


def without_repeats(value: Any, schema: Any, alike: Any = None) -> tuple[Any, Any]:
    """Return an answer without labels that a list of chosen ones has before; and `alike`.

    `alike` has the answer's shape, as its confidence has: it loses the same elements.

    >>> schema = {"properties": {"tags": {"type": "array", "items": {}, ONCE: True}}}
    >>> without_repeats({"tags": ["a", "b", "a"]}, schema, {"tags": [1, 2, 3]})
    ({'tags': ['a', 'b']}, {'tags': [1, 2]})
    """
    if not isinstance(schema, Mapping):
        return value, alike
    for case in schema.get("anyOf", ()):
        value, alike = without_repeats(value, case, alike)
    if isinstance(value, list):
        is_once = ONCE in schema
        places = [n for n, element in enumerate(value) if not (is_once and element in value[:n])]
        others = alike if isinstance(alike, list) else [None] * len(value)
        pairs = [without_repeats(value[n], schema.get("items"), others[n]) for n in places]
        made = [other for _, other in pairs] if isinstance(alike, list) else alike
        return [kept for kept, _ in pairs], made
    if isinstance(value, Mapping):
        inner = schema.get("properties", {})
        known = alike if isinstance(alike, Mapping) else {}
        found = {
            name: without_repeats(element, inner.get(name), known.get(name))
            for name, element in value.items()
        }
        made = {name: found[name][1] if name in found else other for name, other in known.items()}
        return {name: kept for name, (kept, _) in found.items()}, made if known else alike
    return value, alike


def without_choice_marks(schema: Any) -> Any:
    """Return a schema without the marks of chosen fields, for decoders and servers."""
    if isinstance(schema, list):
        is_nested = any(isinstance(child, dict | list) for child in schema)
        return [without_choice_marks(child) for child in schema] if is_nested else schema
    if not isinstance(schema, dict):
        return schema
    kept = ((name, child) for name, child in schema.items() if name not in (CHOOSE, ONCE))
    return {name: without_choice_marks(child) for name, child in kept}


class PromptLabels(Struct, frozen=True):
    digest: str
    fields: tuple[FieldPath, ...]
    text: str


def prompt_labels(
    choices: Sequence[Choice], lists: Mapping[FieldPath, LabelList]
) -> tuple[PromptLabels, ...]:
    """Return the long lists, each once, with the fields that are chosen from them."""
    made: dict[str, list[Choice]] = {}
    for choice in choices:
        if not lists[choice.field].is_short:
            made.setdefault(lists[choice.field].digest, []).append(choice)
    shown: list[PromptLabels] = []
    for digest, same in made.items():
        names = " and ".join(f'"{choice.shown}"' for choice in same if choice.field)
        lines = [f"Labels for {names}:" if names else "Labels:"]
        for label, words in lists[same[0].field].labels.items():
            lines.append(f"- {label}: {words}" if words else f"- {label}")
        for choice in same:
            if choice.keys.unknown is not None:
                field = choice.shown or "the answer"
                lines.append(f'Where none of them fits, "{field}" is "{choice.keys.unknown}".')
        shown.append(PromptLabels(digest, tuple(choice.field for choice in same), "\n".join(lines)))
    return tuple(shown)
