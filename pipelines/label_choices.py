"""`choose` in `reply.schema`: fields whose values are the labels of a list that only a run knows.

Until then a stand-in with the keys as written is in the schema (`CHOOSE`); `schema_with_labels`
puts an `enum` of the labels in its place. What is a label of a list, and what is wrong with a list,
is decided here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from paddock.engine.system.text import listed, one_line

from .errors import did_you_mean
from .expressions import Expression, ExpressionError, Path
from .keys import ChooseKeys

CHOOSE = "x-choose"
"""Marks the schema of such a field; a keyword without effect."""
_STAND_IN = {"enum": ["label"]}
MOST_LABELS = 20_000
"""In one list; their constraint is compiled in 0.6 s."""
_MOST_LABEL_CHARS = 200
_SHORT_LIST_CHARS = 300
"""Of labels without descriptions: these are told with the form of the answer, as an `enum` is."""
_SHOWN_CHARS = 60


class WrongLabels(ValueError):
    """A list that no field can be chosen from: what is wrong, and what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


@dataclass(frozen=True)
class Choice:
    """A field that is chosen from a list."""

    field: str
    """Its path in the answer with dots, as in `items.tag`."""
    at: Path
    """Its path in the schema as written."""
    source: Expression
    keys: ChooseKeys

    @property
    def relabels_all(self) -> bool:
        """Whether any change of the list makes every item stale."""
        return self.keys.relabel == "all"


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
    choice = Choice(".".join(one for one in at if isinstance(one, str)), at, source, keys)
    written = keys.model_dump(exclude_none=True, exclude={"relabel"})
    node: Any = {**_STAND_IN, CHOOSE: written | {"field": choice.field}}
    if keys.most is not None:
        node = {"type": "array", "items": node, "maxItems": keys.most}
    return node, choice


def _wrong_key(error: Any, data: Mapping[str, Any]) -> WrongLabels:
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        known = ("choose", *(one for one in ChooseKeys.model_fields if one != "choose"))
        return WrongLabels(f"`choose` has no key '{name}'", did_you_mean(name, known))
    if error["type"] == "value_error":
        return WrongLabels(str(error["ctx"]["error"]))
    words = {
        "most": "a whole number above 0",
        "narrow": "a whole number above 1",
        "relabel": "'affected' or 'all'",
    }
    shown = one_line(str(data.get(name)), _SHOWN_CHARS)
    return WrongLabels(f"`{name}` must be {words.get(name, 'a text')}; it is '{shown}'")


@dataclass(frozen=True, slots=True)
class LabelList:
    """The labels of one list."""

    source: str
    """The expression that names it."""
    labels: Mapping[str, str]
    """Each label with its description, which may be empty."""
    digest: str

    @classmethod
    def of(cls, value: Any, choice: Choice) -> LabelList:
        """Return the labels of a list of texts or rows.

        Raises:
            WrongLabels: it is no such list, is empty, or labels are the same or nearly so.
        """
        source, keys = choice.source.source, choice.keys
        if not isinstance(value, list):
            what = f"'{source}' is {_kind_of(value)}, not a list of texts or rows"
            raise WrongLabels(what, "Read a table with `files.rows`, and name its `rows`.")
        if not value:
            raise WrongLabels(f"'{source}' is an empty list: there is no label to choose")
        if len(value) > MOST_LABELS:
            what = f"'{source}' has {len(value):,} labels; at most {MOST_LABELS:,} can be chosen"
            raise WrongLabels(f"{what} from")
        pairs = [_pair(one, n, source, keys) for n, one in enumerate(value, 1)]
        _refuse_alike([label for label, _ in pairs], source, keys.unknown)
        labels = dict(pairs)
        text = json.dumps(sorted(pairs), ensure_ascii=False)
        return cls(source, labels, hashlib.sha256(text.encode()).hexdigest()[:16])

    def part(self, labels: Sequence[str]) -> LabelList:
        """Return the list of some of its labels, in this order."""
        return replace(self, labels={one: self.labels[one] for one in labels})

    @property
    def is_short(self) -> bool:
        """Whether it stands in the form of the answer, and needs no place of its own."""
        is_plain = not any(self.labels.values())
        return is_plain and sum(len(one) + 4 for one in self.labels) <= _SHORT_LIST_CHARS


def _pair(one: Any, number: int, source: str, keys: ChooseKeys) -> tuple[str, str]:
    """Return the label of an element, and its description."""
    label, words = one, ""
    if isinstance(one, Mapping):
        if keys.by is None:
            remedy = f"Add `by` with the column of the label: {listed([*map(str, one)], 5)}."
            raise WrongLabels(f"'{source}' is a list of rows", remedy)
        label = _cell(one, keys.by, "by", number, source)
        if keys.describe is not None:
            found = _cell(one, keys.describe, "describe", number, source)
            words = one_line(str(found)) if found is not None else ""
    elif keys.by is not None:
        raise WrongLabels(
            f"`by` names a column, but element {number} of '{source}' is {_kind_of(one)}",
            "Leave out `by` where the list has texts.",
        )
    if not isinstance(label, str) or not label.strip():
        what = "empty" if isinstance(label, str) or label is None else _kind_of(label)
        raise WrongLabels(f"label {number} of '{source}' is {what}; a label is a text")
    if len(label) > _MOST_LABEL_CHARS:
        shown = one_line(label, _SHOWN_CHARS)
        raise WrongLabels(
            f"label {number} of '{source}' has {len(label):,} characters, and at most "
            f"{_MOST_LABEL_CHARS} can be chosen: '{shown}'"
        )
    return label, words


def _cell(row: Mapping[str, Any], column: str, key: str, number: int, source: str) -> Any:
    if column not in row:
        what = f"`{key}`: row {number} of '{source}' has no column '{column}'"
        raise WrongLabels(what, did_you_mean(column, [*map(str, row)]))
    return row[column]


def _refuse_alike(labels: Sequence[str], source: str, unknown: str | None) -> None:
    """Refuse labels that are the same, or that people and models cannot tell apart."""
    seen: dict[str, tuple[str, int]] = {}
    for number, label in enumerate(labels, 1):
        first, place = seen.setdefault(" ".join(label.split()).casefold(), (label, number))
        if place == number:
            continue
        if first == label:
            what = f"'{source}' has the label '{label}' twice, as number {place} and {number}"
            raise WrongLabels(what, "Remove one of them.")
        raise WrongLabels(
            f"the labels '{first}' and '{label}' of '{source}' (numbers {place} and {number}) "
            f"differ by case or space only",
            "Keep one of them.",
        )
    if unknown is not None and " ".join(unknown.split()).casefold() in seen:
        what = f"`unknown`: '{unknown}' is a label of '{source}' as well"
        raise WrongLabels(what, "Choose other words.")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {str: "a text", bool: "true or false", dict: "a mapping", list: "a list"}
    return kinds.get(type(value), "a number")


def schema_with_labels(schema: Any, lists: Mapping[str, LabelList]) -> Any:
    """Return a schema with an `enum` of labels for each chosen field; `lists` are by field.

    A field of a long list stays marked: its labels are told elsewhere.
    """
    if isinstance(schema, list):
        return [schema_with_labels(one, lists) for one in schema]
    if not isinstance(schema, dict):
        return schema
    written = schema.get(CHOOSE)
    found = lists.get(written["field"]) if isinstance(written, dict) else None
    if written is None or found is None:
        return {name: schema_with_labels(one, lists) for name, one in schema.items()}
    unknown = written.get("unknown")
    enum = [*found.labels, *([unknown] if unknown is not None else [])]
    return {"enum": enum} if found.is_short else {"enum": enum, CHOOSE: written}


def chosen_labels(output: Any, field: str) -> list[str]:
    """Return the labels that an answer has in a field, also in lists of it.

    >>> chosen_labels({"items": [{"tag": "a"}, {"tag": ["b", "c"]}]}, "items.tag")
    ['a', 'b', 'c']
    """
    return [one for one in _values_at(output, field.split(".")) if isinstance(one, str)]


def _values_at(value: Any, names: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _values_at(one, names)
    elif not names or names == [""]:
        yield value
    elif isinstance(value, Mapping) and names[0] in value:
        yield from _values_at(value[names[0]], names[1:])


def without_choice_marks(schema: Any) -> Any:
    """Return a schema without the marks of chosen fields, for decoders and servers."""
    if isinstance(schema, list):
        is_nested = any(isinstance(one, dict | list) for one in schema)
        return [without_choice_marks(one) for one in schema] if is_nested else schema
    if not isinstance(schema, dict):
        return schema
    kept = ((name, one) for name, one in schema.items() if name != CHOOSE)
    return {name: without_choice_marks(one) for name, one in kept}


@dataclass(frozen=True, slots=True)
class ToldList:
    """A list of labels as a prompt tells it."""

    digest: str
    fields: tuple[str, ...]
    """The fields that are chosen from it."""
    text: str


def told_lists(choices: Sequence[Choice], lists: Mapping[str, LabelList]) -> tuple[ToldList, ...]:
    """Return the long lists, each once, with the fields that are chosen from them."""
    made: dict[str, list[Choice]] = {}
    for choice in choices:
        if not lists[choice.field].is_short:
            made.setdefault(lists[choice.field].digest, []).append(choice)
    return tuple(_told(lists[some[0].field], some) for some in made.values())


def _told(found: LabelList, choices: Sequence[Choice]) -> ToldList:
    fields = tuple(one.field for one in choices)
    names = " and ".join(f'"{one}"' for one in fields if one)
    lines = [f"Labels for {names}:" if names else "Labels:"]
    lines += [f"- {one}: {words}" if words else f"- {one}" for one, words in found.labels.items()]
    lines += [
        f'Where none of them fits, "{one.field or "the answer"}" is "{one.keys.unknown}".'
        for one in choices
        if one.keys.unknown is not None
    ]
    return ToldList(found.digest, fields, "\n".join(lines))
