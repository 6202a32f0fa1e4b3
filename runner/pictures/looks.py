"""How bars look by their kind, and the legend: colour and pattern, never colour alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from html import escape
from types import MappingProxyType

WAITED, SEVERAL, AREA, BARE = "waited", "several", "area", "bare"
PATTERNS = frozenset(("bad", "known", "tool", "skipped", "held"))
"""Looks that have a pattern over their colour."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "done": "done",
        "bad": "failed or quarantined",
        "skipped": "skipped",
        "held": "held: an output was edited, and is kept as it is",
        "call": "answered by a model",
        "known": "the ledger had the reply",
        "tool": "a tool",
        AREA: "calls that models work on, without those that wait",
        WAITED: "waited for its turn, or for the model to be loaded",
        SEVERAL: "several that are too short to be drawn alone; if one failed, all look so",
        BARE: "point at a bar without a label to read it",
    }
)
_LOOKS: Mapping[str, str] = MappingProxyType({"failed": "bad", "quarantined": "bad"})


def look_of(kind: str) -> str:
    """Return the look of an item's state, or of a kind of call.

    >>> look_of("quarantined"), look_of("changed"), look_of("tool")
    ('bad', 'done', 'tool')
    """
    look = _LOOKS.get(kind, kind)
    return look if look in _WORDS else "done"


def legend(looks: Collection[str]) -> str:
    """Return the legend for these looks."""
    entries = "".join(
        f"<li>{_swatch(look)}{escape(words)}</li>"
        for look, words in _WORDS.items()
        if look in looks
    )
    return f'<ul class="legend">{entries}</ul>'


def over(look: str) -> str:
    """Return the attributes of what lies over a bar and has its pattern; see `DEFINITIONS`."""
    return f'class="over {look}" fill="url(#over-{look})"'


def _swatch(look: str) -> str:
    if look == BARE:
        return ""
    if look == SEVERAL:
        return "<b>12 \N{MULTIPLICATION SIGN}</b> "
    kind = look if look in (WAITED, AREA) else f"bar {look}"
    size = 'x="1" y="1" width="24" height="12" rx="2"'
    pattern = f"<rect {over(look)} {size}/>" if look in PATTERNS else ""
    return (
        f'<svg class="chart" width="26" height="14" aria-hidden="true">'
        f'<rect class="{kind}" {size}/>{pattern}</svg> '
    )


DEFINITIONS = """
<svg class="looks" width="0" height="0" aria-hidden="true"><defs>
<pattern id="over-bad" width="7" height="7" patternUnits="userSpaceOnUse"
patternTransform="rotate(45)"><path d="M0 0V7"/></pattern>
<pattern id="over-known" width="6" height="6" patternUnits="userSpaceOnUse"><circle cx="3" cy="3"
r="1.3"/></pattern>
<pattern id="over-tool" width="5" height="5" patternUnits="userSpaceOnUse"><path d="M0 2H5"/>
</pattern>
<pattern id="over-skipped" width="5" height="5" patternUnits="userSpaceOnUse"><path d="M2 0V5"/>
</pattern>
<pattern id="over-held" width="7" height="7" patternUnits="userSpaceOnUse"
patternTransform="rotate(-45)"><path d="M0 0V7"/></pattern>
</defs></svg>
""".strip()
"""What the looks with a pattern refer to; once in a page."""
