"""Colours and type of all pictures and pages, light and dark, as CSS.

Contrast is 4.5 or more for text, 3 or more for lines, on whatever they are drawn.
"""

from __future__ import annotations

STYLE = """
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
svg.chart .bar.tool,svg.chart .bar.held{fill:var(--running)}
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
svg.chart .tool~svg text.inside,svg.chart .held~svg text.inside{--back:var(--running)}
""".strip()
