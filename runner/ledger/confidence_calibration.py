"""Calibration: what a step's probabilities are worth, by what people decided. Pure.

A field that a person accepted, or left as it was in an edit, was right; one that was edited was
wrong. A rejection says that the answer is not to be used: of its fields only those count, as
wrong, that the reason names (`total, pay_by: misread`). Isotonic regression (pool adjacent
violators) makes of these the share that was right at each probability; it never falls where the
probability rises.

Nothing is said where nothing was reviewed: outside the probabilities that were reviewed, in a gap
between them, in a tenth with few decisions, of a field with few decisions. A table belongs to one
step, model, prompt and schema. An item's own decision never counts for its own confidence. Fits
never decide whether an item is fresh.

Answers that were in doubt are wrong more often than others. Where a random share of the sure ones
was asked about as well (`review.also`), each of these stands for 1 / share answers, and each that
was in doubt for itself (inverse probability weights, Horvitz and Thompson 1952); a number of them
counts as so many of equal weight as know the share as well (Kish 1965). Draws are nested, and a
larger share asks about earlier answers, too: an answer's share is the largest since it was asked
about. Of each kind, what is decided stands for what is still open as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias, TypeVar

from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.text import counted, path_text
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.reply_schema import is_confidence

from .asked_before import is_same_value
from .reviews import Review

LEAST_FIELDS = 50
"""Reviewed fields without which nothing is calibrated: a share of 0.9 is then known to ± 0.04."""
LEAST_DECISIONS = 10
"""Decisions without which a tenth, a field or a step of the line says nothing: 10 of 10 right are
a share above 0.72, with 95 % certainty."""
MOST_GAP = 0.025
"""Between neighbouring reviewed probabilities that are farther apart nothing is known: a quarter
of a tenth, as far apart as 10 decisions of a tenth are by chance (1 in 7 gaps is wider)."""
N_BINS = 10
MOST_PAIRS = 40_000
"""Pairs of items that are compared, as of two lists of 200 that share no beginning or end; 0.2 s
with ten values each."""


class WeighedField(NamedTuple):
    """The probability of a field as the model had it, whether the field was right, its weight."""

    raw: float
    is_right: bool
    weight: float = 1.0


Reviewed: TypeAlias = tuple[float, bool]
"""The same with a weight of 1."""
K = TypeVar("K")
FieldName: TypeAlias = tuple[str, ...]
"""Names from the answer down to a field; items of lists have none of their own."""


def tenth_of(raw: float) -> int:
    return min(N_BINS - 1, int(raw * N_BINS))


@dataclass(frozen=True, slots=True)
class _Weights:
    """Sums of the weights of some decisions, and what they say."""

    all: float = 0.0
    squares: float = 0.0
    right: float = 0.0

    @classmethod
    def of(cls, fields: Iterable[WeighedField]) -> _Weights:
        found = list(fields)
        return cls(
            sum(field.weight for field in found),
            sum(field.weight**2 for field in found),
            sum(field.weight for field in found if field.is_right),
        )

    def __add__(self, other: _Weights) -> _Weights:
        return _Weights(
            self.all + other.all, self.squares + other.squares, self.right + other.right
        )

    @property
    def n(self) -> float:
        """How many decisions of equal weight know the share as well.

        >>> _Weights.of([WeighedField(0.9, True, 20.0)] * 10).n
        10.0
        """
        return round(self.all**2 / self.squares, 6) if self.squares else 0.0

    @property
    def share(self) -> float:
        return self.right / self.all


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising line through `knots`: probability of the model, share that was right."""

    knots: tuple[tuple[float, float], ...]
    raws: tuple[float, ...] = field(repr=False)
    """The probabilities that were reviewed, rising, each once."""
    tenths: frozenset[int]
    """Those in which enough was decided."""
    lows: tuple[float, ...] = ()
    """By knot, the lower bound of the share that was right (Wilson, 95 of 100 cases)."""
    names: frozenset[FieldName] | None = None
    """Fields of which enough was decided; None: any."""

    def of(self, raw: float) -> float | None:
        """Return the share that was right at a probability; None where too little was reviewed.

        >>> line = fit([(0.55, False), (0.57, True)] * 5)
        >>> line.of(0.56), line.of(0.58)
        (0.5, None)
        """
        after = bisect_left(self.raws, raw)
        if tenth_of(raw) not in self.tenths or after == len(self.raws):
            return None
        before = self.raws[after - 1] if after else -1.0
        if self.raws[after] != raw and self.raws[after] - before > MOST_GAP:
            return None
        return self._between(raw, [share for _, share in self.knots])

    def low(self, raw: float) -> float:
        """Return the lower bound where `of` has a share."""
        return self._between(raw, self.lows)

    def _between(self, raw: float, heights: Sequence[float]) -> float:
        after = bisect_left(self.knots, (raw, -1.0))
        right, high = self.knots[after][0], heights[after]
        if right == raw:
            return high
        left, low = self.knots[after - 1][0], heights[after - 1]
        return round(low + (high - low) * (raw - left) / (right - left), 4)

    def covers(self, name: FieldName) -> bool:
        return self.names is None or name in self.names


def fit(reviewed: Iterable[Reviewed | WeighedField]) -> Calibration:
    """Return the isotonic regression of what was right on its probability.

    Each of its steps has 10 decisions or more, so that one decision never makes a share of 1.

    >>> fit([(0.2, False), (0.5, True), (0.5, False), (0.8, False), (0.9, True)] * 10).knots
    ((0.2, 0.0), (0.5, 0.3333), (0.8, 0.3333), (0.9, 1.0))

    Raises:
        ValueError: there is nothing to fit.
    """
    fields = sorted(WeighedField(*field) for field in reviewed)
    if not fields:
        raise ValueError("no reviewed fields")
    pooled: list[_Pool] = []
    for raw, equal in groupby(fields, key=lambda weighed: weighed.raw):
        pooled.append(_Pool(raw, raw, _Weights.of(equal)))
        while len(pooled) > 1 and pooled[-2].share >= pooled[-1].share:
            _join_last(pooled)
    edges = [(raw, pool) for pool in _large(pooled) for raw in pool.edges]
    knots = [(raw, round(pool.share, 4)) for raw, pool in edges]
    lows = [round(share_interval(pool.share, pool.n)[0], 4) for _, pool in edges]
    tenths = _enough_decided((tenth_of(field.raw), field) for field in fields)
    raws = tuple(sorted({field.raw for field in fields}))
    return Calibration(tuple(knots), raws, tenths, tuple(lows))


def _enough_decided(fields: Iterable[tuple[K, WeighedField]]) -> frozenset[K]:
    """Return the groups of which enough was decided; `fields` have their group in front."""
    found: dict[K, list[WeighedField]] = {}
    for group, weighed_field in fields:
        found.setdefault(group, []).append(weighed_field)
    return frozenset(
        group for group, held in found.items() if _Weights.of(held).n >= LEAST_DECISIONS
    )


def _large(pools: Sequence[_Pool]) -> list[_Pool]:
    """Join rising pools that have few decisions with the next one, the last with that before."""
    made: list[_Pool] = []
    for pool in pools:
        made.append(pool)
        if len(made) > 1 and made[-2].n < LEAST_DECISIONS:
            _join_last(made)
    if len(made) > 1 and made[-1].n < LEAST_DECISIONS:
        _join_last(made)
    return made


def _join_last(pools: list[_Pool]) -> None:
    last = pools.pop()
    pools[-1] = pools[-1].joined(last)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Neighbouring probabilities with one share."""

    low: float
    high: float
    weights: _Weights

    @property
    def n(self) -> float:
        return self.weights.n

    @property
    def share(self) -> float:
        return self.weights.share

    @property
    def edges(self) -> tuple[float, ...]:
        return (self.low,) if self.low == self.high else (self.low, self.high)

    def joined(self, other: _Pool) -> _Pool:
        return _Pool(self.low, other.high, self.weights + other.weights)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Fields with a probability of a range, and how many of them were right."""

    low: float
    high: float
    n: int
    n_right: int
    weights: _Weights | None = None
    """Of decisions that do not count alike."""

    @property
    def _n_equal(self) -> float:
        return self.n if self.weights is None else self.weights.n

    @property
    def label(self) -> str:
        """The range, as in `0.8 to 0.9`."""
        return f"{self.low:.1f} to {self.high:.1f}"

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the true share, right in 95 of 100 cases (Wilson).

        >>> [round(bound, 2) for bound in ReliabilityBin(0.9, 1.0, 10, 10).interval]
        [0.72, 1.0]
        """
        return share_interval(self.share, self._n_equal)

    @property
    def share(self) -> float:
        return self.n_right / self.n if self.weights is None else self.weights.share

    @property
    def bounds(self) -> str:
        """The interval in words; whether it is too wide to be used."""
        low, high = self.interval
        too_few = "" if self._n_equal >= LEAST_DECISIONS else "; too few to calibrate"
        return f"{low:.0%} to {high:.0%}{too_few}"


def reliability(reviewed: Iterable[Reviewed | WeighedField]) -> list[ReliabilityBin]:
    """Return how often fields were right, by tenths of their probability, without empty ones.

    >>> [(one.label, one.n, one.n_right) for one in reliability([(0.93, True), (1.0, False)])]
    [('0.9 to 1.0', 2, 1)]
    """
    found: dict[int, list[WeighedField]] = {}
    for row in reviewed:
        found.setdefault(tenth_of(row[0]), []).append(WeighedField(*row))
    return [_bin(number, fields) for number, fields in sorted(found.items())]


def _bin(number: int, fields: Sequence[WeighedField]) -> ReliabilityBin:
    n_right = sum(field.is_right for field in fields)
    is_even = len({field.weight for field in fields}) == 1
    weights = None if is_even else _Weights.of(fields)
    return ReliabilityBin(number / N_BINS, (number + 1) / N_BINS, len(fields), n_right, weights)


# What was decided


@dataclass(frozen=True, slots=True)
class DecidedField:
    """A field of one answer, its probability, and whether it was right."""

    name: FieldName
    raw: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class DecidedAnswer:
    """What a person decided about one answer."""

    item: tuple[str, str]
    """Scope and key."""
    document_sha256: str
    fields: tuple[DecidedField, ...]
    is_sampled: bool = False
    """Whether it was sure, and one of the random share that is asked about."""
    is_in_doubt: bool = True
    """Whether it would be asked about now without that share, if it is not of it."""
    share: float | None = None
    """Of the sure answers among which it was drawn; None: that of all of them."""
    weight: float = 1.0
    """How many answers it stands for."""

    def weighed(self) -> Iterator[tuple[FieldName, WeighedField]]:
        for decided in self.fields:
            yield decided.name, WeighedField(decided.raw, decided.is_right, self.weight)


@dataclass(frozen=True, slots=True)
class AskedShare:
    """What was asked about a step's answers, besides those that are decided."""

    share: float | None = None
    """The largest share of sure answers that was asked about; None: none of them was."""
    n_open_doubtful: int = 0
    n_open_sampled: int = 0


def comparable(answers: Iterable[DecidedAnswer], share: AskedShare) -> list[DecidedAnswer]:
    """Return the answers that say something together, with their weights.

    Where enough of a share of the sure answers is decided, these are all of which it is known how
    probably they were asked about. Else only those in doubt are known, and they count alike.
    """
    found = list(answers)
    sampled = [answer for answer in found if answer.is_sampled]
    doubtful = [answer for answer in found if answer.is_in_doubt and not answer.is_sampled]
    n_sampled, n_doubtful = _n_fields(sampled), _n_fields(doubtful)
    is_enough = n_sampled >= LEAST_DECISIONS and n_sampled + n_doubtful >= LEAST_FIELDS
    if share.share is None or not is_enough:
        return [answer for answer in found if not answer.is_sampled]
    of_sampled = 1 + share.n_open_sampled / len(sampled)
    of_doubtful = 1 + share.n_open_doubtful / max(1, len(doubtful))
    return [
        *(replace(answer, weight=of_doubtful) for answer in doubtful),
        *(replace(answer, weight=of_sampled / (answer.share or share.share)) for answer in sampled),
    ]


def _n_fields(answers: Iterable[DecidedAnswer]) -> int:
    return sum(len(answer.fields) for answer in answers)


def reviewed_fields(review: Review) -> list[DecidedField]:
    """Return the fields of a whole review that a person decided on, as far as they have confidence.

    What expired, what no one has decided, and what was accepted unseen with others says nothing.
    """
    if review.together is not None:
        return []
    answer, confidence = review.subject.get("answer"), review.subject.get("confidence")
    if review.state == "accepted":
        return [DecidedField(name, raw, True) for _, name, raw in _leaves(confidence, answer)]
    if review.state == "edited":
        return list(_compared(confidence, answer, review.value))
    if review.state == "rejected":
        wrong = named_fields(review.reason or "", answer)
        return [
            DecidedField(name, raw, False)
            for path, name, raw in _leaves(confidence, answer)
            if any(path[: len(wrong_path)] == wrong_path for wrong_path in wrong)
        ]
    return []


_Path: TypeAlias = tuple[str | int, ...]


def named_fields(reason: str, answer: Any) -> list[_Path]:
    """Return the paths of the fields that a reason names before its colon; none if it has others.

    >>> named_fields("total, lines.0.price: misread", {"total": 1, "lines": [{"price": 2}]})
    [('total',), ('lines', 0, 'price')]
    >>> named_fields("a scan of a cat: no bill", {"total": 1})
    []
    """
    paths: dict[str, list[_Path]] = {}
    for path in _paths(answer):
        for name in {path_text(path), ".".join(map(str, path))}:
            paths.setdefault(name, []).append(path)
    found: list[_Path] = []
    left = reason.strip()
    while left:
        begun = (name for name in paths if left.startswith(name))
        ended = ((name, left[len(name) :].lstrip()) for name in begun)
        fitting = [(name, rest) for name, rest in ended if rest[:1] in ("", ",", ":")]
        if not fitting:
            return []
        name, rest = max(fitting, key=lambda named_rest: len(named_rest[0]))
        found += paths[name]
        if rest[:1] != ",":
            return found
        left = rest[1:].lstrip()
    return found


def _paths(answer: Any, path: _Path = ()) -> Iterator[_Path]:
    held: Iterable[tuple[str | int, Any]] = ()
    if isinstance(answer, Mapping):
        held = answer.items()
    elif isinstance(answer, list):
        held = enumerate(answer)
    for key, value in held:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _leaves(
    confidence: Any, answer: Any, path: _Path = (), name: FieldName = ()
) -> Iterator[tuple[_Path, FieldName, float]]:
    """Yield the fields of an answer that have confidence: path, name, probability."""
    if is_confidence(confidence):
        if confidence["raw"] is not None:  # else a person wrote it
            yield path, name, float(confidence["raw"])
    elif isinstance(confidence, Mapping) and isinstance(answer, Mapping):
        for key in filter(confidence.__contains__, answer):
            yield from _leaves(confidence[key], answer[key], (*path, key), (*name, key))
    elif isinstance(confidence, list) and isinstance(answer, list):
        for at, (element, value) in enumerate(zip(confidence, answer, strict=False)):
            yield from _leaves(element, value, (*path, at), name)


_REMOVED = object()
"""Equals no value of a field."""


def _compared(
    confidence: Any, answer: Any, decided: Any, name: FieldName = ()
) -> Iterator[DecidedField]:
    """Yield the fields of an edited answer, and whether the decided value is theirs.

    Of lists that are too long to be aligned nothing is known.
    """
    if is_confidence(confidence):
        if confidence["raw"] is not None:
            is_right = is_same_value(answer, decided)
            yield DecidedField(name, float(confidence["raw"]), is_right)
    elif isinstance(confidence, Mapping) and isinstance(answer, Mapping):
        values = decided if isinstance(decided, Mapping) else {}
        for key in filter(confidence.__contains__, answer):
            within = values.get(key, _REMOVED)
            yield from _compared(confidence[key], answer[key], within, (*name, key))
    elif isinstance(confidence, list) and isinstance(answer, list):
        partners = aligned(answer, decided if isinstance(decided, list) else [], _REMOVED)
        for element, value, within in zip(confidence, answer, partners or (), strict=False):
            yield from _compared(element, value, within, name)


def _fit_of(answers: Iterable[DecidedAnswer]) -> Calibration | None:
    """Return the fit of the fields of answers; None: there are too few."""
    found = [field for answer in answers for field in answer.weighed()]
    if len(found) < LEAST_FIELDS:
        return None
    return replace(fit(field for _, field in found), names=_enough_decided(found))


# Which item of a list has become which one of an edited list: an item that a person deleted or
# inserted shifts those behind it, so lists are aligned as texts are, with the fewest differences.


def aligned(before: Sequence[Any], after: Sequence[Any], removed: Any) -> list[Any] | None:
    """Return what became of each item of `before`: an item of `after`, or `removed`.

    None: they are too long to be compared.

    >>> aligned(["a", "b", "c"], ["b", "x"], None)
    [None, 'b', None]
    """
    first = _n_same(before, after)
    last = _n_same(before[first:][::-1], after[first:][::-1])
    ends = len(before) - last, len(after) - last
    rest, others = before[first : ends[0]], after[first : ends[1]]
    if len(rest) * len(others) > MOST_PAIRS:
        return None
    middle = _moved(rest, others, _partners(rest, others))
    found = [removed if at is None else others[at] for at in middle]
    return [*after[:first], *found, *after[ends[1] :]]


def _n_same(left: Sequence[Any], other: Sequence[Any]) -> int:
    pairs = zip(left, other, strict=False)
    return next(
        (n for n, pair in enumerate(pairs) if not is_same_value(*pair)), min(len(left), len(other))
    )


def _partners(before: Sequence[Any], after: Sequence[Any]) -> list[int | None]:
    """Return the place in `after` of each item of `before`; None: it was removed."""
    costs = [[_difference(element, other) for other in after] for element in before]
    # Two items that share nothing are better left out
    costs = [[cost if cost < 1 else 3.0 for cost in row] for row in costs]
    n, m = len(before), len(after)
    # total[i][j]: the least cost of what is behind i and j; to leave an item out costs 1
    total = [[float(n - i + m - j) for j in range(m + 1)] for i in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            pair = costs[i][j] + total[i + 1][j + 1]
            total[i][j] = min(pair, 1 + total[i + 1][j], 1 + total[i][j + 1])
    found: list[int | None] = []
    j = 0
    for i in range(n):
        while j < m and total[i][j] == 1 + total[i][j + 1] < costs[i][j] + total[i + 1][j + 1]:
            j += 1
        is_pair = j < m and total[i][j] == costs[i][j] + total[i + 1][j + 1]
        found.append(j if is_pair else None)
        j += is_pair
    return found


def _difference(left: Any, other: Any) -> float:
    """Return the share of an item's values that another one does not have.

    >>> _difference({"a": 1, "b": [2, 3]}, {"a": 1, "b": [2, 4]})
    0.25
    """
    if isinstance(left, Mapping) and isinstance(other, Mapping):
        names = {**left, **other}
        within = [_difference(left.get(name), other.get(name)) for name in names]
    elif isinstance(left, list) and isinstance(other, list):
        pairs = zip(left, other, strict=False)
        within = [_difference(*pair) for pair in pairs]
        within += [1.0] * abs(len(left) - len(other))
    else:
        return float(not is_same_value(left, other))
    return sum(within) / max(1, len(within))


def _moved(
    before: Sequence[Any], after: Sequence[Any], partners: Sequence[int | None]
) -> list[int | None]:
    """Pair items that were taken out with the same ones that were put in elsewhere."""
    left = [at for at in range(len(after)) if at not in set(partners)]
    found: list[int | None] = []
    for element, partner in zip(before, partners, strict=True):
        place = partner
        if place is None:
            place = next((at for at in left if is_same_value(element, after[at])), None)
            left = [at for at in left if at != place]
        found.append(place)
    return found


class CalibrationKey(NamedTuple):
    """What a table belongs to. A change of any of these begins another one."""

    pipeline: str
    """The file's name."""
    step: str
    model_digest: str
    prompt_digest: str
    schema_digest: str

    def changes(self, other: CalibrationKey) -> str:
        """Return what differs from the key of the same step, in words.

        >>> CalibrationKey("a", "s", "1", "2", "3").changes(CalibrationKey("a", "s", "1", "0", "0"))
        'prompt and schema'
        """
        names = ("model", "prompt", "schema")
        pairs = zip(names, self[2:], other[2:], strict=True)
        return " and ".join(name for name, own, others in pairs if own != others)


@dataclass(frozen=True)
class StepCalibration:
    """What people decided about one step's fields with one model, prompt and schema."""

    key: CalibrationKey
    model: str
    """The model's name as of the newest review."""
    at: float
    """When the newest of its answers was asked about."""
    answers: tuple[DecidedAnswer, ...] = field(repr=False)
    n_rejected: int = 0
    """Rejected answers whose reason names no field."""
    is_of_all: bool = False
    """Whether every answer was asked about, sure or not."""
    asked_share: AskedShare = AskedShare()

    @property
    def n_fields(self) -> int:
        return sum(len(answer.fields) for answer in self.answers)

    def calibration(
        self, item: tuple[str, str] | None = None, document_sha256: str = ""
    ) -> Calibration | None:
        """Return the fit without what was decided about an item, or about its document elsewhere.

        None while too few fields were reviewed.
        """
        own = {item, document_sha256} - {None, ""}
        if own.isdisjoint(self._decided):
            return self._whole
        return _fit_of(
            answer
            for answer in self._compared
            if own.isdisjoint((answer.item, answer.document_sha256))
        )

    @cached_property
    def _decided(self) -> frozenset[Any]:
        both = ((answer.item, answer.document_sha256) for answer in self.answers)
        return frozenset(part for pair in both for part in pair)

    @cached_property
    def _whole(self) -> Calibration | None:
        return _fit_of(self._compared)

    @property
    def rows(self) -> list[ReliabilityBin]:
        """The reliability table; empty while too few fields were reviewed."""
        if self.n_fields < LEAST_FIELDS:
            return []
        return reliability(field for answer in self._compared for _, field in answer.weighed())

    @cached_property
    def _compared(self) -> list[DecidedAnswer]:
        return comparable(self.answers, self.asked_share)

    @property
    def basis(self) -> str:
        """Which answers the table is of, in words."""
        sampled = [answer for answer in self._compared if answer.is_sampled]
        n_doubtful = len(self._compared) - len(sampled)
        if not sampled and self.is_of_all:
            return "of all answers"
        if not sampled:
            return "of answers in doubt alone, which are wrong more often than the others"
        n_open = self.asked_share.n_open_doubtful
        shares = sorted({answer.share or self.asked_share.share or 1 for answer in sampled} or {1})
        share = " to ".join(
            f"{100 * share_bound:g}%" for share_bound in dict.fromkeys((shares[0], shares[-1]))
        )
        what = "sure answers alone" if n_open and not n_doubtful else "all answers"
        return (
            f"of {what}: {counted(n_doubtful, 'answer')} in doubt{_open_text(n_doubtful, n_open)}, "
            f"and {len(sampled):,} of a random {share} of the others"
            f"{_open_text(len(sampled), self.asked_share.n_open_sampled)}, "
            "which count for as many as they stand for"
        )


def _open_text(n_decided: int, n_open: int) -> str:
    return f" ({n_decided:,} of {n_decided + n_open:,} decided)" if n_open else ""


def key_of(review: Review) -> CalibrationKey:
    names = ("digest", "prompt_digest", "schema_digest")
    model, prompt, schema = (str(review.subject.get(name) or "") for name in names)
    return CalibrationKey(
        str(review.subject.get("pipeline") or ""), review.step, model, prompt, schema
    )


def calibrations_of(reviews: Iterable[Review]) -> dict[CalibrationKey, StepCalibration]:
    """Return what was decided about each step; `reviews` are whole ones, open ones as well."""
    found: dict[CalibrationKey, list[Review]] = {}
    for review in reviews:
        if review.subject.get("confidence") is not None:
            found.setdefault(key_of(review), []).append(review)
    return {key: _step_calibration(key, held) for key, held in found.items()}


def _step_calibration(key: CalibrationKey, reviews: Sequence[Review]) -> StepCalibration:
    newest = max(reviews, key=lambda review: review.asked_at)
    when = {review.subject.get("when") for review in reviews if review.share is not None}
    answers: list[DecidedAnswer] = []
    n_rejected, share = 0, 0.0
    for review in sorted(reviews, key=lambda review: -review.asked_at):
        share = max(share, review.share or 0.0)
        if fields := tuple(reviewed_fields(review)):
            place = (review.scope, review.key)
            document = str(review.subject.get("document_sha256") or "")
            is_in_doubt = _is_in_doubt(review, when)
            answers.append(
                DecidedAnswer(
                    place, document, fields, review.is_sampled, is_in_doubt, share or None
                )
            )
        else:
            n_rejected += review.state == "rejected"
    undecided = [review for review in reviews if not review.is_decided or review.state == "expired"]
    undecided += [review for review in reviews if review.together is not None]
    return StepCalibration(
        key,
        str(newest.subject.get("model") or ""),
        newest.asked_at,
        tuple(answers),
        n_rejected,
        is_of_all=all(_asks_about_all(str(review.subject.get("when"))) for review in reviews),
        asked_share=AskedShare(
            max((review.share for review in reviews if review.share is not None), default=None),
            sum(_is_in_doubt(review, when) and not review.is_sampled for review in undecided),
            sum(review.is_sampled for review in undecided),
        ),
    )


def _asks_about_all(when: str) -> bool:
    """Return whether even an answer of which the model is wholly sure is asked about.

    >>> [*map(_asks_about_all, ("true", "confidence.min <= 1", "confidence.min < 1", "output.x"))]
    [True, True, False, False]
    """
    sure = dict.fromkeys(("min", "mean", "low"), 1.0)
    try:
        found: dict[str, list[str]] = {"missing": [], "partial": []}
        return bool(Expression.of(when).evaluate({"confidence": sure, "evidence": found}))
    except ExpressionError:  # it reads the answer, or is no expression any more
        return False


def _is_in_doubt(review: Review, when: Collection[Any]) -> bool:
    """Return whether an answer would be asked about now without `also`.

    One that was asked about before there was a share is, while `when` is as it was; `when` has
    its texts since then.
    """
    if review.share is not None:
        return not review.is_sampled
    return bool(review.subject.get("due")) and review.subject.get("when") in when


def former_tables(
    key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]
) -> list[StepCalibration]:
    """Return the tables of a step's other models, prompts and schemas, the newest first."""
    found = [
        table
        for other, table in tables.items()
        if other[:2] == key[:2] and other != key and table.n_fields
    ]
    return sorted(found, key=lambda table: -table.at)


def start_text(key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]) -> str | None:
    """Return why a step that was reviewed before is not calibrated yet; None: it is, or was not."""
    own, former = tables.get(key), former_tables(key, tables)
    n_fields = 0 if own is None else own.n_fields
    if not former or n_fields >= LEAST_FIELDS:
        return None
    return (
        f"'{key.step}': its confidence has {n_fields:,} of {LEAST_FIELDS} reviewed fields. "
        f"{counted(former[0].n_fields, 'reviewed field')} of another "
        f"{key.changes(former[0].key)} no longer count{'s' * (former[0].n_fields == 1)}."
    )


def calibrated(confidence: Any, calibration: Calibration, name: FieldName = ()) -> Any:
    """Return the confidence of an answer with `p` as people's decisions have it; `raw` stays.

    What is left of 1 is divided among the other values as before: `second_p` has its share of it.
    """
    if is_confidence(confidence):
        raw = confidence["raw"]
        is_known = raw is not None and calibration.covers(name)
        p = calibration.of(raw) if is_known else None
        if p is None or confidence.get("is_empty"):
            return confidence
        second_p, rest = confidence.get("second_p"), 1.0 - confidence["p"]
        if second_p is not None and rest > 0:
            second_p = round((1.0 - p) * min(second_p / rest, 1.0), 4)
        found = {"p": p, "low": calibration.low(raw), "second_p": second_p}
        return {**confidence, **found, "is_calibrated": True}
    if isinstance(confidence, Mapping):
        return {
            key: calibrated(part, calibration, (*name, key)) for key, part in confidence.items()
        }
    if isinstance(confidence, list):
        return [calibrated(part, calibration, name) for part in confidence]
    return confidence
