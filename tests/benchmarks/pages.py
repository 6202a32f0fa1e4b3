r"""Pages of known text: what the reader of PDFs makes of what ten programs print.

    uv run --with typst --with weasyprint --with reportlab --with matplotlib \
        --with PySide6-Essentials --with docling-parse --with pdfplumber \
        python tests/benchmarks/pages.py [SEED [FOLDER]]

Eight kinds of pages from a seed: amounts at the right, lists, a table with empty cells, two and
three columns, footnotes, raised and lowered figures in three sizes, spaced letters. Each program
that is here prints each (into FOLDER); one that is not is named. A page is right if words, order,
cells and marks are those of its source. Prints a row for each program; of the four peers the
characters are compared, in their order and without blanks and marks.
"""

import random
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pypdfium2  # type: ignore[import-untyped]

from paddock.steps.readers import pdf
from paddock.steps.readers.reader_process import ReadOptions

WORDS = "the tenant pays rent for rooms on each third day and heats all of them while owner keeps"
KINDS = ("floats", "lists", "table", "two", "three", "notes", "raised", "spaced")
MARK = re.compile(r"\[\^(\d+)\]|\^(\d+)|_(\d+)")
TABLE = [("Item", "Place", "Count"), ("Nails", "", "40"), ("", "yard", "7")]


class Block(NamedTuple):
    kind: str
    """A heading, paragraph, row, list (`ol`, `ul`), table, columns, or a note."""
    texts: list[str]
    """One; left and right of a row; items; columns' paragraphs; cells, by rows of three."""
    size: float = 11.0
    spacing: float = 0.0
    n: int = 0
    """How many columns there are; whether a table has lines."""

    def said(self) -> list[str]:
        if self.kind == "table":
            rows = [self.texts[at : at + 3] for at in range(0, len(self.texts), 3)]
            return ["| " + " | ".join(row) + " |" for row in rows]
        if self.kind == "ol":
            return [f"{at}. {text}" for at, text in enumerate(self.texts, 1)]
        if self.kind == "ul":
            return [f"- {text}" for text in self.texts]
        if self.kind == "note":
            return [f"[^1]: {self.texts[0]}"]
        return [" ".join(self.texts)]


def prose(chance: random.Random, n_words: int) -> str:
    words = chance.choices(WORDS.split(), k=n_words)
    words[n_words // 2] = str(chance.randint(2, 2099))
    return " ".join(words).capitalize() + "."


def page(kind: str, chance: random.Random) -> list[Block]:
    text, end = (Block("p", [prose(chance, n)]) for n in (24, 20))
    if kind == "floats":
        amounts = [(name, f"{chance.randint(100, 999)}.50 EUR") for name in ("Net", "VAT", "Total")]
        return [text, *(Block("row", [*amount]) for amount in amounts), end]
    if kind == "lists":
        items = [prose(chance, n) for n in (5, 26, 7)]
        return [text, Block("ol", items), Block("ul", items), end]
    if kind == "table":
        rows = [*TABLE, ("Long ladder", "north", str(chance.randint(1, 90)))]
        return [text, Block("table", [*sum(rows, ())], n=chance.randint(0, 1)), end]
    if kind in ("two", "three"):
        texts = [prose(chance, 60) for _ in range(4)]
        return [Block("h", ["News"], 18), Block("columns", texts, n=2 if kind == "two" else 3)]
    if kind == "notes":
        fee = Block("p", [f"The fee is 40[^1] EUR. {text.texts[0]}"])
        return [fee, Block("note", ["without tax"])]
    if kind == "raised":
        line = "Of 12 m^2 and 10^6 units of H_2O is 4."
        return [Block("p", [line], size) for size in (9, 12, 15)]
    total = Block("row", ["Total due", "1 200.50 EUR"], spacing=1)
    return [Block("h", ["ACCOUNT OF THE YEAR"], 18, 3), text, total, end]


def marked(text: str, raised: str, lowered: str, note: str = "") -> str:
    """Return a text whose marks are those of a language; `@` stands for the figure."""
    forms = note or raised, raised, lowered

    def form(found: re.Match[str]) -> str:
        at = found.lastindex or 1
        return forms[at - 1].replace("@", found[at])

    return MARK.sub(form, text)


STYLE = (
    "<!doctype html><meta charset=utf-8><style>body{font:11pt Liberation Sans} "
    "td{padding:2px 9px;text-align:left;vertical-align:top} table{border-collapse:collapse} "
    ".box td{border:1px solid} .row{clear:both} .row span{float:right}</style>"
)


def html(blocks: list[Block], rows: str, columns: str) -> str:
    """Return a page; `rows` and `columns` are how a program sets them side by side."""
    out = STYLE
    for block in blocks:
        kind, texts, style = block.kind, block.texts, f"font-size:{block.size}pt"
        style += f";letter-spacing:{block.spacing}pt" if block.spacing else ""
        texts = [marked(text, "<sup>@</sup>", "<sub>@</sub>") for text in texts]
        if kind in ("h", "p"):
            tag = "h1" if kind == "h" else "p"
            out += f"<{tag} style='{style}'>{texts[0]}</{tag}>"
        elif kind == "row":
            out += rows.format(*texts, style=style)
        elif kind in ("ol", "ul"):
            out += f"<{kind}>" + "".join(f"<li>{text}</li>" for text in texts) + f"</{kind}>"
        elif kind == "note":
            out += f"<hr><div><sup>1</sup> {texts[0]}</div>"
        elif kind == "table":
            cells = ["<tr>" * (at % 3 == 0) + f"<td>{text}</td>" for at, text in enumerate(texts)]
            out += f"<table width=100% {'class=box border=1' * block.n}>{''.join(cells)}</table>"
        elif columns == "cells":
            parts = [texts[:2], texts[2:]] if block.n == 2 else [texts[:1], texts[1:2], texts[2:]]
            paragraphs = ("".join(f"<p>{text}</p>" for text in part) for part in parts)
            filled = "".join(f"<td width=200>{text}</td>" for text in paragraphs)
            out += f"<table><tr>{filled}</tr></table>"
        else:
            begin, end = columns.format(n=block.n).split("|")
            out += begin + "".join(f"<p>{text}</p>" for text in texts) + end
    return out


FLOAT = '<div class=row style="{style}">{}<span>{}</span></div>'
CELLS = (
    '<table width=100% border=0><tr><td><span style="{style}">{}</span></td>'
    '<td style="text-align:right" align=right><span style="{style}">{}</span></td></tr></table>'
)
CSS_COLUMNS = "<div style='column-count:{n};-webkit-column-count:{n};column-gap:24px'>|</div>"


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=120)


def chromium(blocks: list[Block], target: Path) -> None:
    source = target.with_suffix(".html")
    source.write_text(html(blocks, FLOAT, CSS_COLUMNS))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
    command("chromium", *flags, f"--print-to-pdf={target}", f"file://{source}")


def wkhtmltopdf(blocks: list[Block], target: Path) -> None:
    source = target.with_suffix(".html")
    source.write_text(html(blocks, FLOAT, CSS_COLUMNS))
    command("wkhtmltopdf", "-q", str(source), str(target))


def weasyprint(blocks: list[Block], target: Path) -> None:
    source = html(blocks, FLOAT, CSS_COLUMNS)
    import_module("weasyprint").HTML(string=source).write_pdf(target)


def soffice(blocks: list[Block], target: Path) -> None:
    source = target.with_suffix(".html")
    source.write_text(html(blocks, CELLS, "<multicol cols={n} gutter=20>|</multicol>"))
    kinds = ("--infilter=HTML (StarWriter)", "--convert-to", "pdf:writer_pdf_Export")
    command("soffice", "--headless", *kinds, "--outdir", str(target.parent), str(source))


def qt(blocks: list[Block], target: Path) -> None:
    gui = import_module("PySide6.QtGui")
    app = gui.QGuiApplication.instance() or gui.QGuiApplication(["", "-platform", "offscreen"])
    document, printer = gui.QTextDocument(), gui.QPdfWriter(str(target))
    printer.setPageSize(gui.QPageSize(gui.QPageSize.PageSizeId.A4))
    document.setDefaultFont(gui.QFont("Liberation Sans", 11))
    document.setHtml(html(blocks, CELLS, "cells"))
    document.print_(printer)
    del printer, app


def typst(blocks: list[Block], target: Path) -> None:
    out = '#set page(paper: "a4")\n#set text(size: 11pt)\n#set par(justify: true)\n'
    for kind, texts, size, spacing, n in blocks:
        texts = [marked(text, "#super[@]", "#sub[@]", "#footnote[without tax]") for text in texts]
        style = f"#text(size: {size}pt, tracking: {spacing}pt)"
        if kind == "h":
            out += f"= {style}[{texts[0]}]\n\n"
        elif kind in ("p", "row"):
            out += f"{style}[{' #h(1fr) '.join(texts)}]\n\n"
        elif kind in ("ol", "ul"):
            out += "".join(f"{'+' if kind == 'ol' else '-'} {text}\n" for text in texts) + "\n"
        elif kind == "table":
            cells = ", ".join(f"[{text}]" for text in texts)
            out += f"#table(columns: (1fr,) * 3, stroke: {'1pt' if n else 'none'}, {cells})\n\n"
        elif kind == "columns":
            paragraphs, height = "\n\n".join(texts), 160 // n + 60
            out += f"#block(height: {height}mm, columns({n}, gutter: 20pt)[{paragraphs}])\n\n"
    source = target.with_suffix(".typ")
    source.write_text(out)
    import_module("typst").compile(str(source), output=str(target))


def pdftex(blocks: list[Block], target: Path) -> None:
    out = r"\documentclass[11pt]{article}\usepackage{multicol}\pagestyle{empty}\parindent0pt"
    out += r"\parskip4pt\begin{document}"
    for kind, texts, size, spacing, n in blocks:
        texts = [marked(t, "$^{@}$", "$_{@}$", r"\footnote{without tax}") for t in texts]
        style = rf"\fontsize{{{size}}}{{{1.2 * size}}}\selectfont "
        if spacing:
            style += rf"\letterspacefont\spaced\font {round(1000 * spacing / size)}\spaced "
        if kind == "h":
            out += rf"{{\bfseries {style}{texts[0]}\par}}"
        elif kind in ("p", "row"):
            joined = r" \hfill ".join(texts)
            out += rf"{{{style}{joined}\par}}"
        elif kind in ("ol", "ul"):
            name = "enumerate" if kind == "ol" else "itemize"
            items = " ".join(rf"\item {text}" for text in texts)
            out += rf"\begin{{{name}}}{items}\end{{{name}}}"
        elif kind == "table":
            line = r"\hline " * n
            rows = (" & ".join(texts[at : at + 3]) for at in range(0, len(texts), 3))
            form = "|p{4cm}|p{4cm}|r|" if n else "p{4cm}p{4cm}r"
            lines = "".join(rf"{line}{row}\\" for row in rows)
            out += rf"\begin{{tabular}}{{{form}}}{lines}{line}\end{{tabular}}\par "
        elif kind == "columns":
            joined = r"\par ".join(texts)
            out += rf"\begin{{multicols}}{{{n}}}{joined}\end{{multicols}}"
    source = target.with_suffix(".tex")
    source.write_text(out + r"\end{document}")
    command("pdflatex", "-interaction=batchmode", f"-output-directory={target.parent}", str(source))


def groff(blocks: list[Block], target: Path) -> None:
    out = ".nr PS 11\n.nr VS 14\n"
    for kind, texts, size, spacing, n in blocks:
        raised, lowered = r"\u\s-3@\s+3\d", r"\v'2p'\s-3@\s+3\v'-2p'"
        texts = [marked(text, raised, lowered, r"\**") for text in texts]
        font = "B" if kind == "h" else "R"
        out += f".tkf {font} 1 {spacing} 99 {spacing}\n.nr PS {size}\n.nr VS {1.25 * size}\n"
        if kind == "h":
            out += f".LP\n.ps {size}\n\\fB{texts[0]}\\fP\n"
        elif kind == "p":
            out += f".LP\n{texts[0]}\n" + ".FS\nwithout tax\n.FE\n" * (r"\**" in texts[0])
        elif kind == "row":
            out += f".LP\n.nf\n.ta \\n(.luR\n{texts[0]}\t{texts[1]}\n.fi\n"
        elif kind in ("ol", "ul"):
            signs = [f"{at}." if kind == "ol" else r"\(bu" for at in range(1, len(texts) + 1)]
            out += "".join(f".IP {sign} 4\n{t}\n" for sign, t in zip(signs, texts, strict=True))
        elif kind == "table":
            rows = ("\t".join(texts[at : at + 3]) for at in range(0, len(texts), 3))
            out += f".LP\n.TS\n{'allbox ' * n}expand;\nl l l.\n" + "\n".join(rows) + "\n.TE\n"
        elif kind == "columns":
            out += (".2C\n" if n == 2 else ".MC 4.8c\n") + "".join(f".LP\n{t}\n" for t in texts)
    source = target.with_suffix(".ms")
    source.write_text(out)
    with target.open("wb") as file:
        words = ["groff", "-t", "-ms", "-Tpdf", str(source)]
        subprocess.run(words, check=True, stdout=file, stderr=subprocess.DEVNULL, timeout=120)


def reportlab(blocks: list[Block], target: Path) -> None:
    lay, styles = import_module("reportlab.platypus"), import_module("reportlab.lib.styles")

    class Spaced(lay.Flowable):  # type: ignore[misc, name-defined]
        def __init__(self, block: Block) -> None:
            super().__init__()
            self.block = block

        def wrap(self, width: float, _: float) -> tuple[float, float]:
            self.right = width
            return width, 1.4 * self.block.size

        def draw(self) -> None:
            for at, text in enumerate(self.block.texts):
                size, spacing = self.block.size, self.block.spacing
                width = self.canv.stringWidth(text, "Helvetica", size) + spacing * len(text)
                line = self.canv.beginText((self.right - width) * at, 3)
                line.setFont("Helvetica", size, 1.2 * size)
                line.setCharSpace(spacing)
                line.textOut(text)
                self.canv.drawText(line)

    def paragraph(text: str, size: float = 11) -> Any:
        style = styles.ParagraphStyle("", fontSize=size, leading=1.2 * size, spaceAfter=4)
        return lay.Paragraph(marked(text, "<super>@</super>", "<sub>@</sub>"), style)

    story = list[Any]()
    for block in blocks:
        kind, texts = block.kind, block.texts
        if kind == "row" or block.spacing:
            story.append(Spaced(block))
        elif kind == "columns":
            story.append(lay.BalancedColumns([*map(paragraph, texts)], nCols=block.n))
        elif kind in ("ol", "ul"):
            start = "1" if kind == "ol" else "•"
            form = {"bulletFormat": "%s."} if kind == "ol" else {}
            items = [*map(paragraph, texts)]
            kind = "1" if kind == "ol" else "bullet"
            story.append(lay.ListFlowable(items, bulletType=kind, start=start, **form))
        elif kind == "table":
            cells = [texts[at : at + 3] for at in range(0, len(texts), 3)]
            grid = [("GRID", (0, 0), (-1, -1), 1, (0, 0, 0))] * block.n
            story.append(lay.Table(cells, colWidths=[150] * 3, style=grid))
        else:
            text = f"<super>1</super> {texts[0]}" if kind == "note" else texts[0]
            story.append(paragraph(text, block.size))
    lay.SimpleDocTemplate(str(target)).build(story)


def matplotlib(blocks: list[Block], target: Path) -> None:
    figures = import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(8.27, 11.69))
    import_module("matplotlib.backends.backend_pdf").FigureCanvasPdf(figure)
    y = 800.0

    def put(x: float, text: str, size: float = 11, spacing: float = 0, **how: Any) -> None:
        text = marked(text, r"$^{@}$", r"$_{@}$")
        for char in text if spacing else [text]:
            shown = figure.text(x / 595, y / 842, char, fontsize=size, va="baseline", **how)
            x += shown.get_window_extent().width * 72 / figure.dpi + spacing if spacing else 0
            x += size * 0.3 if spacing and char == " " else 0

    def lines(x: float, n_chars: int, text: str) -> None:
        nonlocal y
        for line in textwrap.wrap(text, n_chars):
            put(x, line, 11)
            y -= 14

    for kind, texts, size, spacing, n in blocks:
        if kind == "columns":
            top, lowest = y, y
            for column, at in enumerate(range(0, 4, 2) if n == 2 else (0, 1, 2)):
                y = top
                for text in texts[at : at + 2] if n == 2 or at == 2 else texts[at : at + 1]:
                    lines(60 + 490 / n * column, 36 if n == 2 else 22, text)
                lowest = min(lowest, y)
            y = lowest
        elif kind == "row":
            put(60, texts[0], size, spacing)
            if spacing:
                put(400, texts[1], size, spacing)
            else:
                put(530, texts[1], size, ha="right")
        elif kind in ("ol", "ul"):
            for at, text in enumerate(texts, 1):
                put(60, f"{at}." if kind == "ol" else "•")
                lines(78, 72, text)
        elif kind == "table":
            for at, text in enumerate(texts):
                put(60 + 150 * (at % 3), text)
                y -= 18 * (at % 3 == 2)
        elif kind == "p" and size == 11:
            lines(60, 76, texts[0])
        else:
            put(60, "$^{1}$ " * (kind == "note") + texts[0], size, spacing)
        y -= 6 + 1.2 * size
    figure.savefig(target)


def shown_by_pdftotext(path: Path) -> str:
    words = ["pdftotext", "-layout", str(path), "-"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def shown_by_pdfium(path: Path) -> str:
    document = pypdfium2.PdfDocument(path)
    return "\n".join(sheet.get_textpage().get_text_range() for sheet in document)


def shown_by_pdfplumber(path: Path) -> str:
    with import_module("pdfplumber").open(path) as document:
        return "\n".join(sheet.extract_text() for sheet in document.pages)


def shown_by_docling(path: Path) -> str:
    document = import_module("docling_parse.pdf_parser").DoclingPdfParser().load(str(path))
    unit = import_module("docling_core.types.doc.page").TextCellUnit.LINE
    cells = (cell for _, sheet in document.iterate_pages() for cell in sheet.iterate_cells(unit))
    return "\n".join(cell.text for cell in cells)


Writer = Callable[[list[Block], Path], None]
WRITERS: dict[str, Writer] = {
    "Chrome": chromium, "WeasyPrint": weasyprint, "Typst": typst, "wkhtmltopdf": wkhtmltopdf,
    "LibreOffice": soffice, "ReportLab": reportlab, "pdfTeX": pdftex, "groff": groff,
    "QPdfWriter": qt, "matplotlib": matplotlib,
}  # fmt: skip
PEERS: dict[str, Callable[[Path], str]] = {
    "docling-parse": shown_by_docling, "pdfplumber": shown_by_pdfplumber,
    "pdftotext -layout": shown_by_pdftotext, "PDFium": shown_by_pdfium,
}  # fmt: skip


def words(lines: list[str]) -> list[str]:
    rows = (re.sub(r"^\s*#+ |\|", " ", line) for line in lines)
    return [word for row in rows if not re.fullmatch(r"[\s-]*", row) for word in row.split()]


def cells(lines: list[str]) -> set[str]:
    return {"".join(line.split()) for line in lines if line.startswith("|")}


def chars(text: str) -> str:
    return re.sub(r"[\s|\[\]^_•\u2013-]|(?<=\d)_", "", text).replace("1:", "1")


def printed(name: str, write: Writer, seed: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for kind in KINDS:
        target = folder / f"{name}-{kind}.pdf"
        write(page(kind, random.Random(f"{name} {kind} {seed}")), target)
        yield kind, target


def main(seed: str, folder: Path) -> None:
    print("| program | right | of | " + " | ".join(PEERS) + " |\n|" + " --- |" * (3 + len(PEERS)))
    for name, write in WRITERS.items():
        n_right, n_of_peers = 0, dict.fromkeys(PEERS, 0)
        try:
            pages = list(printed(name, write, seed, folder))
        except (ImportError, FileNotFoundError) as error:
            print(f"{name} is not installed, its pages are left out: {error}", file=sys.stderr)
            continue
        for kind, path in pages:
            blocks = page(kind, random.Random(f"{name} {kind} {seed}"))
            wanted = [line for block in blocks for line in block.said()]
            wanted += ["1"] * (name == "QPdfWriter")  # which numbers its pages
            with path.open("rb") as file:
                found = pdf.read_pdf(file, ReadOptions(ocr=False)).text.split("\n")
            is_right = words(found) == words(wanted) and cells(wanted) <= cells(found)
            n_right += is_right
            if not is_right:
                print(f"{name} {kind}: {found}\n  {wanted}", file=sys.stderr)
            for peer, shown in PEERS.items():
                with suppress(ImportError, FileNotFoundError):
                    n_of_peers[peer] += chars(shown(path)) == chars("".join(wanted))
        print(f"| {name} | {n_right} | {len(pages)} |", *(f"{n} |" for n in n_of_peers.values()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        given = sys.argv[1:]
        main(given[0] if given else "0", Path(given[1] if given[1:] else scratch).resolve())
