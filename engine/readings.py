"""A pool's numbers as code reads them: plain, typed, of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase


@dataclass(frozen=True, slots=True)
class Spread:
    """What a histogram tells: how often, the sum, and the bounds of its buckets."""

    n: int
    total: float
    buckets: tuple[tuple[float, int], ...]
    """Upper bound, and how many were not above it."""

    @property
    def mean(self) -> float:
        """The average; 0 where nothing was observed."""
        return self.total / self.n if self.n else 0.0

    def quantile(self, share: float) -> float:
        """Estimate below what this share lies, by a straight line through the bucket.

        >>> Spread(4, 5.0, ((1.0, 2), (2.0, 4), (float("inf"), 4))).quantile(0.75)
        1.5
        """
        wanted, low, n_below = share * self.n, 0.0, 0
        for high, n in self.buckets:
            if n >= wanted and n > n_below:
                if high == float("inf"):
                    return low
                return low + (high - low) * (wanted - n_below) / (n - n_below)
            low, n_below = high, n
        return 0.0


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Numbers of one model since the pool was opened."""

    n_loads: int
    load_s: float
    n_evictions: int
    """Times that it went to make room for another one."""
    n_deaths: int
    n_requeued: int
    n_refused: int
    n_answers: int
    prompt_tokens: int
    prompt_reused_tokens: int
    completion_tokens: int
    """Of answers that have ended."""
    said_tokens: int
    """Of answers under way, too, and of those that were broken off."""
    drafted_tokens: int
    accepted_tokens: int
    n_preemptions: int
    n_texts: int
    text_tokens: int
    n_running: int
    """Sequences in the last step."""
    n_waiting: int
    cells_used: int
    cells_shared: int
    outside_s: Spread
    """The wait for a place in the worker, its loading included."""
    queue_s: Spread
    """The wait inside the worker."""
    first_token_s: Spread
    between_tokens_s: Spread
    step_s: Spread
    batch_tokens: Spread
    batch_sequences: Spread

    @property
    def acceptance(self) -> float:
        """The share of guessed tokens that were right; 0 where none was guessed."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """Numbers of a pool, by the names of its models."""

    models: Mapping[str, ModelMetrics]


def _samples(metric: MetricWrapperBase, model: str, **more: str) -> Iterator[Any]:
    wanted = {"model": model, **more}.items()
    for family in metric.collect():
        for sample in family.samples:
            if wanted <= sample.labels.items() and not sample.name.endswith("_created"):
                yield sample


def total(metric: MetricWrapperBase, model: str, **more: str) -> float:
    """Add up what a counter or a gauge holds of a model, over all other labels."""
    return sum(float(sample.value) for sample in _samples(metric, model, **more))


def count(metric: MetricWrapperBase, model: str, **more: str) -> int:
    """Give the same of what is counted by whole numbers."""
    return round(total(metric, model, **more))


def spread(metric: Histogram, model: str) -> Spread:
    """Read a histogram."""
    n, amount, buckets = 0, 0.0, []
    for sample in _samples(metric, model):
        if sample.name.endswith("_count"):
            n = round(sample.value)
        elif sample.name.endswith("_sum"):
            amount = float(sample.value)
        else:
            buckets.append((float(sample.labels["le"]), round(sample.value)))
    return Spread(n, amount, tuple(buckets))
