"""Jinja2 sandbox for expressions: filters, what a template may reach, limits on time and memory.

Jinja2's own sandbox guards attributes. Time and memory are metered here, from outside the
template: each loop turn, call, filter, operator and literal passes a `TemplateMeter`, which knows
the deadline and how much was made so far. The size of each single result is limited, so nothing
runs long between two checks of the clock. The limits are generous for pipelines (a digest of 10,000
results takes some 50,000 steps) and far below what harms a machine.
`NativeEnvironment` is never used: it turns the text `2024` into a number and lets Undefined
through.

Harmless filters are those of Jinja2; those that can make a large value from a small one are
replaced by ones with a limit. `misuses` compares a filter's arguments with its signature: missing
or unknown arguments, constants of a wrong type.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import islice, pairwise
from textwrap import TextWrapper
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeGuard, Union, get_args, get_origin, get_type_hints

from jinja2 import StrictUndefined, TemplateRuntimeError, nodes, pass_environment
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Namespace, missing

from paddock.engine.system.template_limits import (
    MAX_TEXT_CHARS,
    MAX_VALUES,
    MeteredEnvironment,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_values,
)

from .errors import did_you_mean

MAX_FILTER_CHARS = 32 * 1024 * 1024
MAX_PARSED_CHARS = 4_000_000  # each part of a text costs some 50 bytes
MAX_WRAP_CHARS = 1_000_000  # textwrap reads about a million characters a second
_PART_CHARS = 256


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_MOST_LEVELS = 1000


_PLAIN = _names(
    "abs capitalize count d default dictsort filesizeformat first float int items last "
    "length list lower map max min reject rejectattr reverse select selectattr groupby "
    "sort string title trim truncate upper"
)
_TESTS = _names(
    "boolean defined divisibleby eq equalto even false float ge greaterthan gt in "
    "integer iterable le lessthan lower lt mapping ne none number odd sequence string "
    "true undefined upper == != > >= < <="
)


def slug(value: str) -> str:
    """Return a name that is safe in paths and addresses.

    >>> slug("Où est l'Été ?")
    'ou-est-l-ete'
    """
    plain = unicodedata.normalize("NFKD", str(value)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def truncate_words(value: str, count: int, end: str = "…") -> str:
    """Return the first words, with `end` if there were more.

    >>> truncate_words("one two three", 2)
    'one two…'
    """
    words = list(islice(re.finditer(r"\S+", value), max(count, 0) + 1))
    if len(words) <= count:
        return value
    return (value[: words[count - 1].end()] if count > 0 else "") + end


def basename(value: str) -> str:
    """Return a path's last part."""
    return re.split(r"[/\\]", str(value).rstrip("/\\"))[-1]


def tojson(value: Any, indent: int | None = None) -> str:
    """Return JSON without HTML escapes."""
    return json.dumps(
        value, ensure_ascii=False, indent=_bounded_size("indent", indent or 0) or None
    )


def replace(value: str, old: str, new: str, count: int | None = None) -> str:
    """Replace, after checking the length of the result."""
    value, old, new = str(value), str(old), str(new)
    times = value.count(old) if count is None or count < 0 else min(value.count(old), count)
    _check_size(len(value) + times * (len(new) - len(old)))
    return value.replace(old, new, -1 if count is None else count)


@pass_environment
def join(environment: Any, value: Any, d: str = "", attribute: str | None = None) -> str:
    """Join texts, after checking the length of the result."""
    parts = []
    n_chars = 0
    for item in value if attribute is None else _attributes(environment, value, attribute):
        text = item if isinstance(item, str) else str(item)
        parts.append(text)
        n_chars += len(text) + len(d)
        _check_size(n_chars)
    return str(d).join(parts)


def wordcount(value: str) -> int:
    """Return the number of words."""
    return sum(1 for _ in re.finditer(r"\w+", str(value)))


def title(value: str) -> str:
    """Capitalise each word."""
    _check_size(len(str(value)), MAX_WRAP_CHARS)
    made: str = JINJA_FILTERS["title"](value)
    return made


def urlencode(value: Any) -> str:
    """Percent-encode a text, or the pairs of a mapping."""
    _check_size(len(str(value)), MAX_WRAP_CHARS)
    made: str = JINJA_FILTERS["urlencode"](value)
    return made


def indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Indent the lines of a text."""
    _check_size(len(str(value)), MAX_WRAP_CHARS * 4)
    pad = " " * _bounded_size("width", width) if isinstance(width, int) else str(width)
    lines = str(value).splitlines(keepends=True)
    _check_size(len(value) + len(pad) * len(lines))
    wants = (blank or bool(line.strip()) for line in lines)
    return "".join(
        pad + line if want and (first or at) else line
        for at, (line, want) in enumerate(zip(lines, wants, strict=True))
    )


def wordwrap(value: str, width: int = 79) -> str:
    """Wrap long lines."""
    text = str(value)
    _check_size(len(text), MAX_WRAP_CHARS)
    wrapper = _LinearWrapper(width)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))


class _LinearWrapper(TextWrapper):
    """The standard library's wrapper, in linear time.

    It breaks a word that is longer than a line by copying the rest of the word for each line: 13 s
    for a million characters at width 1. Shorter parts, each longer than a line, come out the same.
    """

    def _split(self, text: str) -> list[str]:
        size = max(self.width, 0) + _PART_CHARS
        return [part for chunk in super()._split(text) for part in _parts(chunk, size)]


def _parts(chunk: str, size: int) -> Iterator[str]:
    """Cut into parts of `size` characters; the last one may be up to twice as long."""
    at = 0
    while len(chunk) - at > 2 * size:
        yield chunk[at : at + size]
        at += size
    yield chunk[at:]


def round_(value: float, precision: int = 0, method: str = "common") -> float:
    """Round a number."""
    made: float = JINJA_FILTERS["round"](value, _bounded_size("precision", precision), method)
    return made


def batch(value: Any, size: int, fill: Any = None) -> list[list[Any]]:
    """Cut a list into lists of one size; the last one can be filled up."""
    items = list(value)
    if not isinstance(size, int) or size < 1:
        raise ValueError("size must be a whole number of at least 1")
    made = [items[at : at + size] for at in range(0, len(items), size)]
    if made and fill is not None:
        made[-1] += [fill] * _bounded_size("size", size - len(made[-1]))
    return made


def slice_(value: Any, count: int) -> list[list[Any]]:
    """Cut a list into a number of lists of about the same length."""
    items, count = list(value), max(_bounded_size("count", count), 1)
    size, more = divmod(len(items), count)
    starts = [at * size + min(at, more) for at in range(count + 1)]
    return [items[start:end] for start, end in pairwise(starts)]


@pass_environment
def sum_(environment: Any, value: Any, attribute: str | None = None, start: float = 0) -> float:
    """Return the sum of numbers."""
    total = start
    for number in value if attribute is None else _attributes(environment, value, attribute):
        if not isinstance(number, int | float):
            raise TypeError("sum adds numbers only")
        total += number
    return total


@pass_environment
def unique(
    environment: Any, value: Any, case_sensitive: bool = False, attribute: str | None = None
) -> list[Any]:
    """Return the values without duplicates."""
    items = list(value)
    compared = items if attribute is None else _attributes(environment, items, attribute)
    seen: dict[Any, Any] = {}
    for item, by in zip(items, compared, strict=True):
        folded = by.lower() if isinstance(by, str) and not case_sensitive else by
        is_nested = isinstance(by, list | tuple | dict)
        seen.setdefault(("", json.dumps(by, sort_keys=True)) if is_nested else folded, item)
    return list(seen.values())


def flatten(value: Any, levels: int | None = None) -> list[Any]:
    """Flatten nested lists; `levels` limits the depth.

    >>> flatten([1, [2, [3]]]), flatten([1, [2, [3]]], 1)
    ([1, 2, 3], [1, 2, [3]])
    """
    most = _MOST_LEVELS if levels is None else _bounded_size("levels", levels)
    made: list[Any] = []
    waiting = [iter(_list_argument("flatten", value))]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list | tuple) and len(waiting) <= most:
                waiting.append(iter(item))
                break
            made.append(item)
        else:
            waiting.pop()
    return made


def zip_(value: Any, *others: Any) -> list[list[Any]]:
    """Return tuples of the items of several lists, as many as the shortest has.

    >>> zip_(["a", "b"], [1, 2, 3])
    [['a', 1], ['b', 2]]
    """
    lists = [_list_argument("zip", one) for one in (value, *others)]
    return [list(items) for items in zip(*lists, strict=False)]


def enumerate_(value: Any, start: int = 0) -> list[list[Any]]:
    """Return pairs of a number and an item.

    >>> enumerate_(["a", "b"], 1)
    [[1, 'a'], [2, 'b']]
    """
    return [[number, item] for number, item in enumerate(_list_argument("enumerate", value), start)]


def split(value: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """Split a text at each `sep`, or at white space.

    >>> split("a, b, c", ", ", 1)
    ['a', 'b, c']
    """
    _check_size(len(_text_argument("split", value)), MAX_PARSED_CHARS)
    return value.split(sep, maxsplit)


def fromjson(value: str) -> Any:
    """Read a text as JSON.

    >>> fromjson('{"a": [1, null]}')
    {'a': [1, None]}
    """
    _check_size(len(_text_argument("fromjson", value)), MAX_PARSED_CHARS)
    try:
        return json.loads(value, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"the text is not JSON: {error.msg} ({place})") from error


def _finite(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else _no_number(written)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"the text is not JSON: it has {name}")


def _text_argument(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} takes a text")
    return value


def _list_argument(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | dict) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} takes a list")
    return list(value)


def _attributes(environment: Any, values: Any, attribute: str) -> Iterator[Any]:
    for value in values:
        for name in str(attribute).split("."):
            value = environment.getitem(value, int(name) if name.isdigit() else name)
        yield value


def _bounded_size(name: str, value: int) -> int:
    if not isinstance(value, int) or abs(value) > 1000:
        raise ValueError(f"{name} must be a whole number up to 1,000")
    return value


def _check_size(n_chars: int, limit: int = MAX_FILTER_CHARS) -> None:
    if n_chars > limit:
        raise ValueError(f"the text would have more than {limit:,} characters")


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    **{"basename": basename, "slug": slug, "tojson": tojson, "truncate_words": truncate_words},
    **{"batch": batch, "slice": slice_, "sum": sum_, "round": round_, "wordwrap": wordwrap},
    **{"title": title, "urlencode": urlencode, "wordcount": wordcount},
    **{"indent": indent, "join": join, "replace": replace, "unique": unique},
    **{"flatten": flatten, "zip": zip_, "enumerate": enumerate_},
    **{"split": split, "fromjson": fromjson},
}
FILTERS: Mapping[str, Callable[..., Any]] = {
    name: JINJA_FILTERS[name] for name in _PLAIN
} | OWN_FILTERS
TESTS: Mapping[str, Any] = {name: JINJA_TESTS[name] for name in _TESTS}
TEXT_FILTERS = frozenset(
    _names(
        "capitalize count d default length lower replace string title trim truncate "
        "truncate_words upper urlencode wordcount wordwrap indent slug basename tojson int "
        "float join split fromjson"
    )
)
"""Filters that take a text as a whole, not as a list of characters."""


_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_REMEDIES = {"sum": "`flatten` makes one list of lists."}


def misuses(node: nodes.Filter) -> Iterator[tuple[str, str]]:
    """Yield sentence and remedy for each wrong argument of a filter."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return  # known only at run time
    signature = _signature(node.name)
    given: dict[str, Any] = {one.key: one.value for one in node.kwargs if _is_named(one)}
    unknown = [name for name in given if name not in signature.parameters]
    if unknown and not _takes_any(signature):
        names = list(signature.parameters)[1:]
        remedy = did_you_mean(unknown[0], names) if names else "It takes none."
        yield f"`{node.name}` takes no `{unknown[0]}`", remedy
        return
    try:
        bound = signature.bind(node.node, *node.args, **given)
    except TypeError as error:
        yield f"`{node.name}` {_reworded(str(error))}", ""
        return
    yield from _type_misuses(node.name, bound.arguments)


def _type_misuses(filter_name: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield sentence and remedy for each constant of a type that a filter does not take."""
    hints = _hints(filter_name)
    for name, value in given.items():
        wanted = hints.get(name, frozenset())
        if wanted and isinstance(value, nodes.Node) and not _may_have_type(value, wanted):
            kinds = " or ".join(_KINDS[kind] for kind in _KINDS if kind in wanted)
            yield f"`{name}` of `{filter_name}` must be {kinds}", _REMEDIES.get(filter_name, "")


def _is_named(node: nodes.Node) -> TypeGuard[nodes.Keyword]:
    """Return whether it is a keyword argument; Jinja2's types also call it a pair."""
    return isinstance(node, nodes.Keyword)


def _may_have_type(node: nodes.Node, wanted: frozenset[type]) -> bool:
    """Return whether an argument may have one of these types; a name may have any."""
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        return False
    if isinstance(node, nodes.TemplateData) or not isinstance(node, nodes.Const):
        return True
    kind = type(node.value)
    return kind in wanted or (kind is int and float in wanted) or kind is bool


@cache
def _signature(name: str) -> inspect.Signature:
    """Return a filter's signature, without what Jinja2 passes first."""
    signature = inspect.signature(FILTERS[name])
    parameters = list(signature.parameters.values())
    if parameters[0].name in ("context", "environment", "eval_ctx", "env"):
        return signature.replace(parameters=parameters[1:])
    return signature


@cache
def _hints(name: str) -> dict[str, frozenset[type]]:
    """Return the plain types that each parameter of our own filters takes.

    Most make a text of what should be one, so a text is asked for where nothing else will do.
    """
    if name not in OWN_FILTERS:
        return {}
    loose = {bool} if name in ("split", "fromjson") else {bool, str}
    hints = {one: _plain_types(hint) for one, hint in get_type_hints(OWN_FILTERS[name]).items()}
    return {one: types for one, types in hints.items() if types and loose.isdisjoint(types)}


def _plain_types(hint: Any) -> frozenset[type]:
    """Return the types of an annotation; none if it takes more than plain values."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    plain = frozenset((*_KINDS, NoneType))
    return frozenset(parts) if plain.issuperset(parts) else frozenset()


def _takes_any(signature: inspect.Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def _reworded(fault: str) -> str:
    """Rewrite a message of `Signature.bind` as a sentence about a filter.

    >>> _reworded("missing a required argument: 'count'")
    'needs `count`'
    """
    name = fault.partition("'")[2].rstrip("'")
    if fault.startswith("missing"):
        return f"needs `{name}`"
    if fault.startswith("multiple values"):
        return f"is given `{name}` twice"
    return "takes fewer arguments"


# --- the sandbox

MAX_STEPS = 2_000_000  # about a second of loop turns, calls and filters
MAX_RANGE = 100_000
JINJA_INTERNALS = (Namespace, LoopContext, Macro)
"""Jinja2's own objects: not data."""

METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        _names(
            "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit "
            "islower isnumeric isspace istitle isupper lower lstrip partition removeprefix "
            "removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith "
            "strip swapcase title upper"
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
}
_SPLITS = frozenset(("split", "rsplit", "splitlines"))
_WIDTH = re.compile(r"\d{4,}|\*")


class MissingValueError(TemplateRuntimeError):
    """An undefined value was used: the message names it, `remedy` lists similar names."""

    def __init__(self, told: tuple[str, str]) -> None:
        message, self.remedy = told
        super().__init__(message)


class MissingValue(StrictUndefined):
    """An undefined name: any use of it raises `MissingValueError`."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] | None = None,
    ) -> None:
        super().__init__(hint, obj, name, exc or MissingValueError)

    @property
    def _undefined_message(self) -> Any:
        """Return the arguments of `MissingValueError`; Jinja2 raises it."""
        name, owner = str(self._undefined_name), self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint, ""
        if owner is missing:
            return f"'{name}' is not known here", did_you_mean(name, environment().names)
        if isinstance(owner, dict):
            return f"there is no '{name}' here", did_you_mean(name, map(str, owner))
        return f"{value_kind(owner)} has no '{name}'", ""


def value_kind(value: Any) -> str:
    kinds = {str: "a text", bool: "a boolean", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", tuple: "a list", dict: "a mapping", type(None): "null"}
    return kinds.get(type(value), "this value")


class TemplateSandbox(MeteredEnvironment):
    """Sandbox: no loader, allow-lists of filters, tests and methods, metered operations."""

    def __init__(self) -> None:
        super().__init__(
            undefined=MissingValue,
            finalize=self.written,
            keep_trailing_newline=True,
            optimized=False,
        )
        self._local = threading.local()
        self.globals = {"range": bounded_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._filter(name, made) for name, made in FILTERS.items()}
        self.filters["_turns"] = self._turns
        self.tests = dict(TESTS)

    @property
    def meter(self) -> TemplateMeter:
        """The meter of this thread's current rendering."""
        rendering = getattr(self._local, "rendering", None)
        return rendering[0] if rendering else _new_meter()

    @property
    def names(self) -> Iterable[str]:
        """The names in the scope of this thread's current rendering."""
        rendering = getattr(self._local, "rendering", None)
        return rendering[1] if rendering else ()

    @contextmanager
    def metering(self, names: Iterable[str]) -> Iterator[None]:
        """Meter one rendering; a nested one has its own meter."""
        before = getattr(self._local, "rendering", None)
        self._local.rendering = (_new_meter(), names)
        try:
            yield
        finally:
            self._local.rendering = before

    def written(self, value: Any) -> str:
        """Account for output of `{{ }}`."""
        if isinstance(value, str):
            return self.made(value)  # type: ignore[no-any-return]  # the same text
        return self.made(self.text(self.made(value)))  # type: ignore[no-any-return]

    def text(self, value: Any) -> str:
        return _text_of(value)

    def _filter(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        reads_text = name in TEXT_FILTERS

        def run(*args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                if isinstance(value, JINJA_INTERNALS):
                    raise TemplateLimitExceeded(
                        "a namespace, macro or `loop` cannot be given to a filter"
                    )
                if not reads_text and isinstance(value, str) and len(value) > MAX_VALUES:
                    raise TemplateLimitExceeded(
                        f"'{name}' would read a text of more than {MAX_VALUES:,} letters"
                    )
            return self.made(filter_(*args, **kwargs))

        # Jinja2 reads from this attribute whether a filter takes context or environment first.
        if hasattr(filter_, "jinja_pass_arg"):
            run.jinja_pass_arg = filter_.jinja_pass_arg  # type: ignore[attr-defined]
        return run

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of the result, then compute it."""
        _check_binop(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Evaluate `obj.attribute`: a key of a mapping, else one of a few methods."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self._attribute(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Evaluate `obj[argument]`: an item, else `obj.argument`."""
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            if isinstance(argument, str) and not isinstance(obj, Undefined):
                return self._attribute(obj, argument)
        if isinstance(obj, Undefined):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)

    def _attribute(self, obj: Any, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise TemplateLimitExceeded(closed_attribute_message(attribute))
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)
        if isinstance(obj, str) and len(obj) > MAX_PARSED_CHARS and attribute in _SPLITS:
            raise TemplateLimitExceeded(
                f"it splits a text of more than {MAX_PARSED_CHARS:,} characters"
            )
        if self._is_readable(obj, attribute):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        if isinstance(obj, str) and attribute in ("replace", "join"):
            return _bounded_method(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    @staticmethod
    def _is_readable(obj: Any, attribute: str) -> bool:
        if isinstance(obj, Namespace | LoopContext):
            return not attribute.startswith("_")
        if isinstance(obj, tuple) and attribute in getattr(type(obj), "_fields", ()):
            return True
        methods = METHODS.get(tuple if isinstance(obj, tuple) else type(obj), frozenset())
        return attribute in methods

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what `getattr` allows (Jinja2 also calls this elsewhere)."""
        return self._is_readable(obj, attr)


def _new_meter() -> TemplateMeter:
    # Lists hold references to their texts, which may be those of ten thousand documents.
    return TemplateMeter(MAX_STEPS, forbidden=JINJA_INTERNALS, max_nested_chars=math.inf)


def closed_attribute_message(attribute: str) -> str:
    return f"it reads '{attribute}', and names that begin with two underscores are not allowed"


def bounded_range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise TemplateLimitExceeded(f"its `range` has more than {MAX_RANGE:,} numbers")
    return made


def _bounded_method(text: str, name: str) -> Callable[..., Any]:
    if name == "replace":
        return lambda *args: replace(text, *args)
    return lambda parts: join(environment(), parts, text)


def _text_of(value: Any) -> str:
    if isinstance(value, JINJA_INTERNALS):
        raise TemplateLimitExceeded("a namespace, macro or `loop` cannot be written as text")
    if isinstance(value, list | tuple | dict):
        check_values(value, JINJA_INTERNALS)
    return value if isinstance(value, str) else str(value)


def _check_binop(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left, right)
    elif isinstance(left, bool | int) and isinstance(right, bool | int):
        bits, more = int(left).bit_length(), int(right).bit_length()
        n_bits = bits * max(right, 0) if operator == "**" else bits + more
        check_bits(n_bits)
    elif operator == "*":
        _check_repeat(left, right)
    elif operator == "+" and isinstance(left, str) and isinstance(right, str):
        environment().meter.add_text(len(left) + len(right))
    elif operator == "**" and not isinstance(left, int | float):
        raise TemplateLimitExceeded("only numbers have powers")


def _check_repeat(left: Any, right: Any) -> None:
    value, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(times, int):
        return
    if isinstance(value, str) and len(value) * times > MAX_TEXT_CHARS:
        raise TemplateLimitExceeded(f"it makes a text of more than {MAX_TEXT_CHARS:,} characters")
    if (
        isinstance(value, list | tuple)
        and check_values(value, JINJA_INTERNALS, math.inf) * times > MAX_VALUES
    ):
        raise TemplateLimitExceeded(f"it makes a list of more than {MAX_VALUES:,} values")


def _check_format(text: str, right: Any) -> None:
    if _WIDTH.search(text):
        raise TemplateLimitExceeded("a width in its format has more than three digits")
    check_values(right, JINJA_INTERNALS)
    values = right if isinstance(right, tuple) else (right,)
    longest = max((len(_text_of(value)) for value in values), default=0)
    if len(text) + text.count("%") * (1000 + longest) > MAX_TEXT_CHARS:
        raise TemplateLimitExceeded(f"it makes a text of more than {MAX_TEXT_CHARS:,} characters")


@lru_cache(maxsize=1)
def environment() -> TemplateSandbox:
    """Return the sandbox; its only state is each thread's meter."""
    return TemplateSandbox()
