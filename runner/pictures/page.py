"""The frame of a page: one file without anything from elsewhere, light and dark, no scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .palette import STYLE

# Nothing may be loaded or run, whatever text a document's name or a reply has smuggled in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LOOK = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem;max-width:76rem;background:var(--paper);color:var(--ink);
font:15px/1.5 ui-sans-serif,system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{margin:.3rem 0}.soft,caption{color:var(--soft)}
a{color:var(--fresh)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--fresh);
outline-offset:2px}
.scroll{overflow-x:auto;border:1px solid var(--wait);border-radius:8px}
.scroll>svg{display:block;margin:auto}
.scroll>svg.chart{min-width:18rem}
table{overflow-wrap:normal;border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.3rem .6rem;caption-side:bottom}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--wait);vertical-align:top}
th{font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td.name{overflow-wrap:anywhere;min-width:10rem}
tr:target{background:var(--block);outline:2px solid var(--fresh)}
.chips{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;margin:1rem 0;list-style:none}
.chips li{border:1px solid var(--wait);border-radius:1rem;padding:.1rem .7rem}
.chips b{font-variant-numeric:tabular-nums}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.3rem 0;list-style:none;
color:var(--soft);font-size:.85rem}
.legend svg{vertical-align:-2px}
.s-done,.s-new,.s-changed,.s-stale,.s-completed{color:var(--done)}
.s-fresh,.s-skipped{color:var(--fresh)}
.s-failed,.s-quarantined{color:var(--failed);font-weight:600}
.s-running,.s-held,.s-interrupted,.s-budget,.s-died{color:var(--running)}
.s-left,.s-deleted,.s-none{color:var(--left)}
.error{border-left:4px solid var(--failed);padding:.2rem .8rem;margin:.6rem 0}
.error p{overflow-wrap:anywhere}
@media print{body{max-width:none}.scroll{overflow:visible}}
""".strip()


def page(title: str, parts: Iterable[str]) -> str:
    """Give a whole page around parts of HTML, which are escaped already."""
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}
{_LOOK}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def table(name: str, heads: Iterable[str], rows: Iterable[str], *, note: str = "") -> str:
    """Give a table that scrolls sideways where a screen is narrow; heads with `#` are numbers."""
    cells = "".join(
        f'<th scope="col" class="n">{escape(head[1:])}</th>'
        if head.startswith("#")
        else f'<th scope="col">{escape(head)}</th>'
        for head in heads
    )
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    body = "\n".join(rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table>{caption}<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def cell(text: str, kind: str = "") -> str:
    """Give a cell; `kind` is its class."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<td{attribute}>{escape(text)}</td>"


def number(value: float | None, shown: str = "{:,.0f}") -> str:
    """Give a cell with a number; nothing where there is none."""
    return f'<td class="n">{"" if not value else escape(shown.format(value))}</td>'
