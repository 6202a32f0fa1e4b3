"""Draw what a terminal showed as an SVG that moves without a script. Pure: no terminal, no clock.

The frames lie below each other, as on a strip of film, and CSS moves the strip past a window; equal
lines are stored once. Who does not play it, or asked for less motion, sees the last frame.
Colours, bold, italics and underlines are kept; backgrounds are not, as nothing of ours has any.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape, quoteattr

COLUMNS, ROWS = 100, 28
CELL, LINE, FONT = 8.4, 18, 14  # pixels; the usual monospace letter is 0.6 of its size wide
PAD, BAR = 16, 2  # pixels around the text; lines above it for the title
SHEET = (ROWS + BAR) * LINE  # pixels from a frame of the strip to the next
WIDTH, HEIGHT = round(COLUMNS * CELL) + 2 * PAD, SHEET + PAD

PATIENCE_S = 4.0  # what takes longer is waiting
FASTER, LONGEST_S = 8, 12.0  # waiting is shortened so many times, and more if it is still longer
SHORTEST_S = 0.15  # of a frame; more of them cost bytes and show nothing

LETTERS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PAPER, INK, PALE = "#1e1e2e", "#cdd6f4", "#8b90a8"
COLOURS = {
    "black": "#45475a",
    "red": "#f38ba8",
    "green": "#a6e3a1",
    "brown": "#f9e2af",  # what terminals call yellow
    "blue": "#89b4fa",
    "magenta": "#f5c2e7",
    "cyan": "#94e2d5",
    "white": INK,
}
WORDS = re.compile(r"\S+(?: \S+)*")


@dataclass(frozen=True, slots=True)
class Run:
    column: int
    text: str
    look: str = ""
    """SVG attributes; see `look`."""


Picture = tuple[tuple[Run, ...], ...]  # the runs of each line, from the top


@dataclass(frozen=True, slots=True)
class Frame:
    seconds: float
    picture: Picture
    note: str = ""


def look(colour: str, *, bold: bool = False, italic: bool = False, underlined: bool = False) -> str:
    """Write SVG attributes for a colour's name (`red`, `brightred`, `default`) or its six digits.

    >>> look("default", bold=True), look("60ac08")
    ('font-weight="bold"', 'fill="#60ac08"')
    """
    fill = PALE if colour == "brightblack" else COLOURS.get(colour.removeprefix("bright"))
    looks = {
        f'fill="{fill or "#" + colour}"': colour != "default",
        'font-weight="bold"': bold,
        'font-style="italic"': italic,
        'text-decoration="underline"': underlined,
    }
    return " ".join(words for words, holds in looks.items() if holds)


def runs(cells: Iterable[tuple[str, str]]) -> tuple[Run, ...]:
    """Join the letters of one look, given as (letter, look) by column; two spaces end a run.

    >>> runs([("a", ""), (" ", ""), ("b", ""), (" ", ""), (" ", ""), ("c", "")])
    (Run(column=0, text='a b', look=''), Run(column=5, text='c', look=''))
    """
    found: list[Run] = []
    for look_, group in itertools.groupby(enumerate(cells), key=lambda cell: cell[1][1]):
        columns = list(group)
        text = "".join(letter or " " for _, (letter, _) in columns)  # "" follows a wide letter
        first = columns[0][0]
        found += (Run(first + word.start(), word[0], look_) for word in WORDS.finditer(text))
    return tuple(found)


def shorten(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Shorten what is waited for, and show how much faster it is."""
    seconds = sum(frame.seconds for frame in frames)
    times = round(max(min(FASTER, seconds / PATIENCE_S), seconds / LONGEST_S))
    if times <= 1:
        return tuple(frames)
    note = f"{times} times faster"
    return tuple(Frame(frame.seconds / times, frame.picture, note) for frame in frames)


def thin(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """Join frames that are equal or too short to be seen: the later picture, the time of both."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and (kept[-1].seconds < SHORTEST_S or kept[-1].picture == frame.picture):
            kept[-1] = replace(frame, seconds=kept[-1].seconds + frame.seconds)
        else:
            kept.append(frame)
    return tuple(kept)


def svg(frames: Sequence[Frame], title: str, about: str) -> str:
    """Draw frames as one SVG that needs nothing else; `about` is for who cannot see it."""
    names: dict[tuple[Run, ...], str] = {}
    sheets = "\n".join("".join(_sheet(n, frame, names)) for n, frame in enumerate(frames))
    lines = "\n".join(f'<g id="{name}">{_texts(line)}</g>' for line, name in names.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
  width="{WIDTH}" height="{HEIGHT}" fill="{INK}" role="img" aria-label={quoteattr(about)}>
<style>
svg {{ font: {FONT}px {LETTERS} }}
#strip {{ animation: play {sum(frame.seconds for frame in frames):.2f}s step-end infinite }}
@media (prefers-reduced-motion: reduce) {{ #strip {{ animation: none }} }}
@keyframes play {{
{keyframes([frame.seconds for frame in frames])}
}}
</style>
<defs>
{lines}
</defs>
<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{PAPER}"/>
<svg x="{PAD}" y="{PAD // 2}" width="{WIDTH - 2 * PAD}" height="{SHEET}">
{_texts((Run(0, title, look("brightblack")),))}
<g id="strip" transform="translate(0 {-(len(frames) - 1) * SHEET})">
{sheets}
</g>
</svg>
</svg>
"""


def keyframes(seconds: Sequence[float]) -> str:
    """Write when each sheet of the strip comes into the window, as parts of the whole time.

    >>> print(keyframes([1.0, 3.0]))
    0.000% { transform: translateY(0px) }
    25.000% { transform: translateY(-540px) }
    100% { transform: translateY(-540px) }
    """
    starts = itertools.accumulate(seconds[:-1], initial=0.0)
    times = [f"{100 * start / sum(seconds):.3f}%" for start in starts]
    sheets = [*enumerate(times), (len(times) - 1, "100%")]
    return "\n".join(f"{time} {{ transform: translateY({-n * SHEET}px) }}" for n, time in sheets)


def _sheet(n: int, frame: Frame, names: dict[tuple[Run, ...], str]) -> Iterator[str]:
    note = Run(COLUMNS - len(frame.note), frame.note, look("brown"))
    rows = ((note,) if frame.note else (), *[()] * (BAR - 1), *frame.picture)
    for row, line in enumerate(rows):
        if line:
            name = names.setdefault(line, f"l{len(names)}")
            yield f'<use href="#{name}" y="{n * SHEET + row * LINE}"/>'


def _texts(line: tuple[Run, ...]) -> str:
    # The length is told as well, so that columns stay straight in a font of another width.
    return "".join(
        f'<text x="{run.column * CELL:.1f}" y="{FONT}" textLength="{len(run.text) * CELL:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" {run.look}>{_escaped(run.text)}</text>'
        for run in line
    )


def _escaped(text: str) -> str:
    """Keep markup from being read, and letters out that XML has no place for."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in text))
