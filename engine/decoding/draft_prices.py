"""What a guessed token costs: the time to check it, as a share of a token's without guesses."""

from __future__ import annotations

from paddock.engine.profile.profile import Profile, prefill_s, step_s

from .context_limits import ContextLimits

# On 2 cores with SmolLM2-135M, a token of a 64-token batch takes a third of one alone. A few drafts
# can take as long as tokens alone, so the price is corrected by the first steps that have some.
UNMEASURED_PRICE = 0.35
_LEAST_PRICE, _MOST_PRICE, _PRICE_WEIGHT = 0.05, 0.95, 0.25
_PROBE_TOKENS, _USUAL_GUESS = 64, 6
USUAL_DEPTH = 512


class DraftPrices:
    def __init__(self) -> None:
        self._known: dict[int, float] = {}
        """By a profile, for each number of sequences."""
        self._seen = UNMEASURED_PRICE
        """By the steps so far, as long as there is no profile."""
        self._plain_s: dict[int, float] = {}
        """Last duration of a step without drafts, by the number of sequences."""

    def of(self, n_sequences: int, limits: ContextLimits, profile: Profile | None) -> float:
        if profile is None or not profile.prefill or not profile.decode:
            return self._seen
        if n_sequences not in self._known:
            self._known[n_sequences] = _measured_price(profile, limits, n_sequences)
        return self._known[n_sequences]

    def forget_measured(self) -> None:
        """Compute them again: by another profile, or in a context with other limits."""
        self._known.clear()

    def note_step(self, n_sequences: int, n_drafts: int, seconds: float) -> None:
        if not n_drafts:
            self._plain_s[n_sequences] = seconds
        elif n_sequences in self._plain_s:
            plain_s = self._plain_s[n_sequences]
            price = (seconds - plain_s) / n_drafts / (plain_s / n_sequences)
            price = min(_MOST_PRICE, max(_LEAST_PRICE, price))
            self._seen += _PRICE_WEIGHT * (price - self._seen)


def _measured_price(profile: Profile, limits: ContextLimits, n_sequences: int) -> float:
    def one_step_s(n: float, depth: float) -> float:
        return step_s(profile, n, depth, limits.is_unified)

    extra_s = prefill_s(profile, _PROBE_TOKENS) / _PROBE_TOKENS
    if limits.is_flash and not profile.is_gpu:
        # Flash attention on a processor reads the cells again for each of few tokens.
        extra_s += max(0.0, one_step_s(1, USUAL_DEPTH) - one_step_s(1, 0))
    if n_sequences > 1 and not limits.is_unified:
        # Streams that have more tokens than the others get a pass of their own.
        alone_s, four_s = one_step_s(1, USUAL_DEPTH), one_step_s(4, USUAL_DEPTH)
        extra_s += max(0.0, alone_s - (four_s - alone_s) / 3) / _USUAL_GUESS
    return extra_s / (one_step_s(n_sequences, USUAL_DEPTH) / n_sequences)
