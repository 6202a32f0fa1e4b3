"""Lay out what tuned copies are worth: lines, a table, and objects for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from paddock.runner.display import console

if TYPE_CHECKING:
    from paddock.engine.tuning.tuned import Tuned

_LOSSLESS = ("F32", "F16", "BF16", "Q8_0")
_ENOUGH_SHARE = 0.85  # as for profiles: alone on the machine it is 0.95 and more


def lines(made: Tuned) -> list[str]:
    """Say what a copy is worth, and what it costs."""
    told = [
        f"{made.name}: {summary(made)}.",
        f"It writes one answer {made.answer_ratio:.1f} times as fast, and eight at once "
        f"{made.answers_ratio:.1f} times.",
    ]
    if made.n_documents:
        told.append(_on_documents(made))
    if made.n_kept:
        told.append(
            f"{made.n_changed:,} of its matrices were in {made.changed_from}, which this machine "
            f"computes slowly; {made.n_kept:,} others stay bit for bit."
        )
    if made.exact_before is not None and made.exact_after is not None:
        told.append(
            f"Of {made.n_compared} next tokens, exact arithmetic would say the same as the "
            f"original at {_percent(made.exact_before)}, and the same as the copy at "
            f"{_percent(made.exact_after)}: processors round."
        )
    if made.format not in _LOSSLESS:
        told.append(f"{made.format} is lossy: answers differ from the original's more often.")
    if min(made.before.share, made.after.share) < _ENOUGH_SHARE:
        told.append("Other programs used the processor meanwhile, so the speeds are rough.")
    told.append(f"It serves from now on; `paddock tune {made.name} --off` undoes it.")
    return [console.clean(line) for line in told]


def _on_documents(made: Tuned) -> str:
    """Return the speeds before and after, as they were measured on the user's documents."""
    before, after = made.before, made.after
    return (
        f"On {console.counted(made.n_documents, 'document')} of yours, tokens/s before and now: "
        f"prompts of {after.n_prompt_tokens} tokens {before.prompts:,.0f} and "
        f"{after.prompts:,.0f}, one answer {before.answer:,.0f} and {after.answer:,.0f}, eight at "
        f"once {before.answers:,.0f} and {after.answers:,.0f}. Agreement is that of "
        f"{made.n_compared:,} of their tokens."
    )


def summary(made: Tuned) -> str:
    """Write what a copy is worth in one line."""
    more = f"{console.size(abs(made.more_bytes))} {'more' if made.more_bytes >= 0 else 'less'}"
    return (
        f"{made.label}, prompts {made.prompts_ratio:.1f} times as fast, "
        f"top-1 agreement {_percent(made.agreement)}, {more}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(copies: Sequence[Tuned]) -> str:
    """Lay the tuned copies out."""
    head = ("NAME", "FORMAT", "ID", "PROMPTS", "ANSWERS", "AGREEMENT", "MORE")
    rows = [
        (
            one.name,
            one.label,
            one.digest[:12],
            f"{one.prompts_ratio:.1f} x",
            f"{one.answers_ratio:.1f} x",
            _percent(one.agreement),
            console.size(max(0, one.more_bytes)),
        )
        for one in copies
    ]
    return console.table([head, *rows])


def as_object(made: Tuned) -> dict[str, Any]:
    """Give the object of `--json`."""
    return {
        "name": made.name,
        "format": made.format,
        "digest": made.digest,
        "tuned_from": made.original,
        "path": made.path,
        "size": made.size_bytes,
        "more": made.more_bytes,
        "agreement": made.agreement,
        "compared": made.n_compared,
        "documents": made.n_documents,
        "changed": made.n_changed,
        "changed_from": made.changed_from,
        "kept": made.n_kept,
        "exact_before": made.exact_before,
        "exact_after": made.exact_after,
        "prompts": made.prompts_ratio,
        "answer": made.answer_ratio,
        "answers": made.answers_ratio,
        "tokens_per_s": {"before": asdict(made.before), "after": asdict(made.after)},
    }
