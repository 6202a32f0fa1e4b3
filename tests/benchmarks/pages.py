"""Pages of known text: what the reader of PDFs makes of what programs print.

uv run python tests/benchmarks/pages.py [SEED]

Eight kinds of pages from a seed: amounts at the right, lists, a table with empty cells, two and
three columns, footnotes, raised and lowered figures in three sizes, spaced letters. Each program
that is here prints each; one that is not is named. A page is right if words, order, cells and marks
are those of its source. Prints a row for each program, and what `pdftotext -layout` has.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.steps.readers import pdf
from paddock.steps.readers.reader_process import ReadOptions

WORDS = "the tenant pays rent for rooms on each third day and heats all of them while owner keeps"
KINDS = ("floats", "lists", "table", "two", "three", "notes", "raised", "spaced")
Row = tuple[str, ...]
RIGHT = '<div class=row>{}<span style="float:right">{}</span></div>'
STYLE = (
    "body{font:11pt Liberation Sans} td,th{padding:2px 9px;text-align:left} .row{clear:both} "
    "table{border-collapse:collapse} .box td{border:1px solid}"
)


def prose(chance: random.Random, n_words: int) -> str:
    words = chance.choices(WORDS.split(), k=n_words)
    words[n_words // 2] = str(chance.randint(2, 2099))
    return " ".join(words).capitalize() + "."


def page(kind: str, chance: random.Random) -> tuple[str, list[str]]:
    """Return a page as HTML, and its text as lines."""
    text, end = prose(chance, 24), prose(chance, 20)
    if kind == "floats":
        pairs = [(name, f"{chance.randint(100, 999)}.50 EUR") for name in ("Net", "VAT", "Total")]
        body = f"<p>{text}</p>" + "".join(RIGHT.format(*pair) for pair in pairs) + f"<p>{end}</p>"
        return body, [text, *map(" ".join, pairs), end]
    if kind == "lists":
        parts = [prose(chance, n) for n in (5, 26, 7)]
        items = "".join(f"<li>{part}</li>" for part in parts)
        said = [f"{at}. {part}" for at, part in enumerate(parts, 1)]
        body = f"<p>{text}</p><ol>{items}</ol><ul>{items}</ul><p>{end}</p>"
        return body, [text, *said, *(f"- {part}" for part in parts), end]
    if kind == "table":
        rows: list[Row] = [("Item", "Place", "Count"), ("Nails", "", "40"), ("", "yard", "7")]
        rows.append(("Long ladder", "north", str(chance.randint(1, 90))))
        cells = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
        frame = chance.choice(("", " class=box"))
        body = f"<p>{text}</p><table width=100%{frame}>{cells}</table><p>{end}</p>"
        return body, [text, *("| " + " | ".join(row) + " |" for row in rows), end]
    if kind in ("two", "three"):
        parts = [prose(chance, 60) for _ in range(4)]
        n = 2 if kind == "two" else 3
        style = f"column-count:{n};-webkit-column-count:{n};column-gap:24px"
        paragraphs = "".join(f"<p>{part}</p>" for part in parts)
        return f"<h1>News</h1><div style='{style}'>{paragraphs}</div>", ["News", *parts]
    if kind == "notes":
        body = (
            f"<p>The fee is 40<sup>1</sup> EUR. {text}</p><hr><div><sup>1</sup> without tax</div>"
        )
        return body, [f"The fee is 40[^1] EUR. {text}", "[^1]: without tax"]
    if kind == "raised":
        line = "Of 12 m<sup>2</sup> and 10<sup>6</sup> units of H<sub>2</sub>O is 4."
        body = "".join(f"<p style='font-size:{size}pt'>{line}</p>" for size in (9, 12, 15))
        return body, ["Of 12 m^2 and 10^6 units of H_2O is 4."] * 3
    title = "<h1 style='letter-spacing:3pt'>ACCOUNT OF THE YEAR</h1>"
    spaced = f"<div style='letter-spacing:1pt'>{RIGHT.format('Total due', '1 200.50 EUR')}</div>"
    said = ["ACCOUNT OF THE YEAR", text, "Total due 1 200.50 EUR", end]
    return f"{title}<p>{text}</p>{spaced}<p>{end}</p>", said


def words(lines: list[str]) -> list[str]:
    rows = (re.sub(r"^\s*#+ |\^\((\d+)\)|\|", " ", line) for line in lines)
    return [word for row in rows if not re.fullmatch(r"[\s-]*", row) for word in row.split()]


def cells(lines: list[str]) -> set[str]:
    return {"".join(line.split()) for line in lines if line.startswith("|")}


def weasyprint(source: Path, target: Path) -> None:
    import_module("weasyprint").HTML(str(source)).write_pdf(target)


def command(*words: str) -> Callable[[Path, Path], None]:
    def run(source: Path, target: Path) -> None:
        shown = [word.format(source=source, target=target) for word in words]
        subprocess.run(shown, check=False, capture_output=True, timeout=60)

    return run


CHROME = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
PROGRAMS: dict[str, Callable[[Path, Path], None]] = {
    "chromium": command("chromium", *CHROME, "--print-to-pdf={target}", "file://{source}"),
    "wkhtmltopdf": command("wkhtmltopdf", "-q", "{source}", "{target}"),
    "weasyprint": weasyprint,
}


def main(seed: str) -> None:
    print("| program | right | of | pdftotext -layout |\n| --- | ---: | ---: | ---: |")
    for name, write in PROGRAMS.items():
        if not (shutil.which(name) or find_spec(name)):
            print(f"{name} is not installed: its pages are left out", file=sys.stderr)
            continue
        n_right = n_peer = 0
        for kind in KINDS:
            body, wanted = page(kind, random.Random(f"{name} {kind} {seed}"))
            with tempfile.TemporaryDirectory() as folder:
                source, target = Path(folder) / "page.html", Path(folder) / "page.pdf"
                head = f"<!doctype html><meta charset=utf-8><style>{escape(STYLE)}</style>"
                source.write_text(f"{head}<body>{body}")
                write(source, target)
                with target.open("rb") as file:
                    found = pdf.read_pdf(file, ReadOptions(ocr=False)).text.split("\n")
                is_right = words(found) == words(wanted) and cells(wanted) <= cells(found)
                n_right += is_right
                if not is_right:
                    print(f"{name} {kind}: {found}", file=sys.stderr)
                if shutil.which("pdftotext"):
                    peer = ["pdftotext", "-layout", str(target), "-"]
                    shown = subprocess.run(peer, check=True, capture_output=True, text=True).stdout
                    plain = re.sub(r"[\^_]|\[\^|\]:?|-", "", " ".join(words(wanted)))
                    n_peer += "".join(plain.split()) == re.sub(r"[\s•-]", "", shown)
        print(f"| {name} | {n_right} | {len(KINDS)} | {n_peer} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "0")
