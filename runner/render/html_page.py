"""HTML page: frame, styles, tables, cells and durations.

One file without scripts that loads nothing, in light and dark colours, which drawings share.
Contrast is at least 4.5 for text and 3 for lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from paddock.runner.bind.protected_files import PAGE_START

COLOUR_CSS = """
:root{--paper:#fff;--ink:#1c2128;--soft:#59636e;--line:#818b98;--box:#f6f8fa;--block:#fbfcfd;
--done:#1a7f37;--fresh:#0969da;--failed:#cf222e;--running:#9a6700;--left:#656d76;--wait:#c9d1d9;
--work:#0969da;--known:#8250df}
@media (prefers-color-scheme: dark){:root{--paper:#0d1117;--ink:#e6edf3;--soft:#9da7b3;
--line:#6e7681;--box:#161b22;--block:#11161d;--done:#3fb950;--fresh:#58a6ff;--failed:#ff7b72;
--running:#d29922;--left:#8b949e;--wait:#30363d;--work:#58a6ff;--known:#bc8cff}}
svg.graph text,svg.chart text{font:13px ui-sans-serif,system-ui,sans-serif;fill:var(--ink)}
svg.graph text.name{font-size:18px;font-weight:600}
svg.graph text.caption,svg.graph text.kind,svg.graph text.model{fill:var(--soft)}
svg.graph text.id{font-weight:600}
svg.graph text.model{font-family:ui-monospace,monospace;font-size:12px}
svg.graph text.mark{text-anchor:end;font-weight:700}
svg.graph rect{fill:var(--box);stroke:var(--line);stroke-width:1.2}
svg.graph rect.paper{fill:var(--paper);stroke:none}
svg.graph .block>rect{fill:var(--block);stroke-dasharray:none}
svg.graph .conditional>rect{stroke-dasharray:5 3}
svg.graph .arrow{fill:none;stroke:var(--line);stroke-width:1.4}
svg.graph .tip{fill:var(--line)}
svg.graph .done>rect{stroke:var(--done)}
svg.graph .done>.mark,svg.graph .done>.state{fill:var(--done)}
svg.graph .fresh>rect{stroke:var(--fresh)}
svg.graph .fresh>.mark,svg.graph .fresh>.state{fill:var(--fresh)}
svg.graph .failed>rect{stroke:var(--failed);stroke-width:2}
svg.graph .failed>.mark,svg.graph .failed>.state{fill:var(--failed)}
svg.graph .running>rect{stroke:var(--running)}
svg.graph .running>.mark,svg.graph .running>.state{fill:var(--running)}
svg.graph .left>.mark,svg.graph .left>.state{fill:var(--left)}
svg.graph :focus{outline:none}
svg.graph :focus>rect{stroke-width:3.5}
svg.graph a{cursor:pointer}
svg.chart text.axis{fill:var(--soft);font-size:11px}
svg.chart .grid{stroke:var(--wait);stroke-width:1}
svg.chart .area{fill:var(--work);fill-opacity:.35;stroke:var(--work);stroke-width:1.2}
svg.chart .bar{fill:var(--done)}
svg.chart .bar.call{fill:var(--work)}svg.chart .bar.known{fill:var(--known)}
svg.chart .bar.tool,svg.chart .bar.held,svg.chart .bar.waiting{fill:var(--running)}
svg.chart .bar.bad{fill:var(--failed)}
svg.chart .bar.skipped{fill:var(--left)}
svg.chart .waited{fill:var(--wait);stroke:var(--line);stroke-width:.5}
svg.looks{position:absolute}
pattern path{stroke:var(--paper);stroke-width:1.4;stroke-opacity:.55}
pattern circle{fill:var(--paper);fill-opacity:.55}
svg.chart text.label{font-size:11px;font-weight:600;paint-order:stroke;stroke-linejoin:round}
svg.chart text.inside{fill:var(--paper)}
svg.chart text.behind{fill:var(--ink);font-weight:400}
svg.chart .over~svg text.inside{stroke:var(--back);stroke-width:4px}
svg.chart .bad~svg text.inside{--back:var(--failed)}
svg.chart .known~svg text.inside{--back:var(--known)}
svg.chart .skipped~svg text.inside{--back:var(--left)}
svg.chart .tool~svg text.inside,svg.chart .held~svg text.inside,
svg.chart .waiting~svg text.inside{--back:var(--running)}
""".strip()


# Nothing is loaded or run, even if an escape of document names or replies fails.
_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_PAGE_CSS = """
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
tr:has(:target){background:var(--block);outline:2px solid var(--fresh)}
.chips{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;margin:1rem 0;list-style:none}
.chips li{border:1px solid var(--wait);border-radius:1rem;padding:.1rem .7rem}
.chips b{font-variant-numeric:tabular-nums}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.3rem 0;list-style:none;
color:var(--soft);font-size:.85rem}
.legend svg{vertical-align:-2px}
.s-done,.s-new,.s-changed,.s-stale,.s-completed,.s-passed,.s-accepted,.s-edited{color:var(--done)}
.s-fresh,.s-skipped{color:var(--fresh)}
.s-failed,.s-error,.s-quarantined,.s-rejected,.s-expired{color:var(--failed);font-weight:600}
.s-running,.s-held,.s-interrupted,.s-budget,.s-died,.s-open,.s-waiting{color:var(--running)}
.s-left,.s-deleted,.s-none{color:var(--left)}
ul.fields{margin:0;padding:0 0 0 1rem}
.error{border-left:4px solid var(--failed);padding:.2rem .8rem;margin:.6rem 0}
.error p{overflow-wrap:anywhere}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
pre{margin:.3rem 0;padding:.5rem .8rem;background:var(--box);border-radius:8px;font-size:.85rem;
white-space:pre-wrap}
pre del{color:var(--failed);text-decoration:none}pre ins{color:var(--done);text-decoration:none}
@media (max-width:40rem){
table,tbody,tr,td,th[scope=row],caption{display:block}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
tbody tr{padding:.3rem 0;border-bottom:1px solid var(--wait)}
td,th[scope=row]{border:0;padding:.1rem .6rem}
td.n{text-align:left;white-space:normal}
td:empty{display:none}
td::before{content:attr(data-head) ": ";color:var(--soft)}
.scroll>svg.graph{max-width:100%;height:auto}}
@media print{body{max-width:none}.scroll{overflow:visible}}
""".strip()


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a page with these parts, which must be escaped already."""
    body = "\n".join(parts)
    return f"""{PAGE_START}<meta http-equiv="Content-Security-Policy" content="{_CONTENT_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{COLOUR_CSS}
{_PAGE_CSS}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def html_table(
    name: str, heads: Sequence[str], rows: Iterable[Iterable[str]], *, note: str = ""
) -> str:
    """Return a table of rows of cells; on a telephone each row is a list with the heads' names.

    `#` marks heads of numbers.
    """
    cells = "".join(
        f'<th scope="col" class="n">{escape(head[1:])}</th>'
        if head.startswith("#")
        else f'<th scope="col">{escape(head)}</th>'
        for head in heads
    )
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    body = "\n".join(f"<tr>{''.join(_named_cells(heads, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table>{caption}<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _named_cells(heads: Sequence[str], row: Iterable[str]) -> Iterable[str]:
    for head, cell in zip(heads, row, strict=True):
        yield cell.replace("<td", f'<td data-head="{escape(head.removeprefix("#"))}"', 1)


def html_cell(text: str, kind: str = "") -> str:
    """Return a cell; `kind` is its CSS class."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<td{attribute}>{escape(text)}</td>"


def number_cell(value: float | None, shown: str = "{:,.0f}") -> str:
    """Return a cell with a number, empty for none and 0."""
    return f'<td class="n">{"" if not value else escape(shown.format(value))}</td>'


def seconds_text(seconds: float) -> str:
    """Return a duration in a compact form.

    >>> seconds_text(0.25), seconds_text(75), seconds_text(7300)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
