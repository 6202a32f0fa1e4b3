"""How much of documents readers find: words, order, headings, rows, places of cells, and how fast.

uv run python tests/benchmarks/readers.py FOLDER… [--only NAME…] [--peers FOLDER] [--missed]

Each folder is a corpus: documents with their ground truth as Markdown beside them under the same
name (`paper.pdf`, `paper.md`). Those of two projects under permissive licences fit: docling's
`tests/data/pdf/sources` with the `.md` files of `tests/data/pdf/groundtruth` copied into it, and
markitdown's `packages/markitdown/tests/test_files` with those of `expected_outputs`.

Every reader that can be imported takes part; `--peers` is a folder with more of them, such as
`lib/python3.11/site-packages` of an environment with `markitdown[pdf] kreuzberg pymupdf4llm`.
A heading is found if a line that is a heading has its words; a row if a line of a table, or one
with tabs, has the same cells, of which empty ones only count for "rows, places": there each value
must stand in its column. Order: of the words that both have once, how many stay in order (longest
increasing run).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import table

SUFFIXES = (".pdf", ".docx", ".pptx", ".xlsx", ".html", ".epub")
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
RULE = re.compile(r"[|\s:-]+")


def read_by_paddock(path: Path) -> str:
    from tests.fakes.readers import read_here

    return read_here(path, max_bytes=10**9).text


def read_by_markitdown(path: Path) -> str:
    from markitdown import MarkItDown  # type: ignore[import-not-found]

    return str(MarkItDown().convert(str(path)).text_content)


def read_by_pypdf(path: Path) -> str:
    from pypdf import PdfReader  # type: ignore[import-not-found]

    return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)


def read_by_kreuzberg(path: Path) -> str:
    from kreuzberg import ExtractionConfig, extract_file_sync  # type: ignore[import-not-found]

    config = ExtractionConfig(output_format="markdown")
    return str(extract_file_sync(str(path), config=config).content)


def read_by_pymupdf4llm(path: Path) -> str:
    import pymupdf4llm  # type: ignore[import-not-found]

    return str(pymupdf4llm.to_markdown(str(path)))


READERS: dict[str, Callable[[Path], str]] = {
    "paddock": read_by_paddock,
    "markitdown": read_by_markitdown,
    "pypdf": read_by_pypdf,
    "kreuzberg": read_by_kreuzberg,
    "pymupdf4llm": read_by_pymupdf4llm,
}


def folded(text: str) -> str:
    """Return letters and digits alone, so that marks and escapes do not count."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, text))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def headings(markdown: str) -> list[str]:
    return [folded(found) for found in HEADING.findall(markdown)]


def rows(text: str, *, keeps_places: bool) -> list[tuple[str, ...]]:
    """Return the cells of each row of a table."""
    found = []
    for line in text.splitlines():
        is_row = line.strip().startswith("|")
        if not (is_row or "\t" in line.strip()) or (is_row and RULE.fullmatch(line)):
            continue
        inner = line.strip().removeprefix("|").removesuffix("|") if is_row else line
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|" if is_row else "\t", inner)]
        shown = [folded(cell) or cell for cell in cells]
        if not keeps_places:
            shown = [cell for cell in shown if cell]
        found.append(tuple(shown))
    return found


def overlap(wanted: Sequence[object], found: Sequence[object]) -> int:
    return sum((Counter(wanted) & Counter(found)).values())


def share_in_order(wanted: Sequence[str], found: Sequence[str]) -> float:
    n_wanted, n_found = Counter(wanted), Counter(found)
    places = {word: at for at, word in enumerate(found) if n_found[word] == 1}
    run = [places[word] for word in wanted if n_wanted[word] == 1 and word in places]
    ends: list[int] = []
    for at in run:
        place = bisect_left(ends, at)
        ends[place : place + 1] = [at]
    return len(ends) / len(run) if run else 1.0


@dataclass
class Score:
    """What one reader has found in all documents of a kind."""

    recall: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    order: list[float] = field(default_factory=list)
    n: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    n_failed: int = 0

    def add(self, truth: str, text: str) -> None:
        wanted, found = words(truth), words(text)
        shared = overlap(wanted, found)
        self.recall.append(shared / len(wanted) if wanted else 1.0)
        self.precision.append(shared / len(found) if found else 0.0)
        self.order.append(share_in_order(wanted, found))
        for name, of in (
            ("headings", headings),
            ("rows", lambda text: rows(text, keeps_places=False)),
            ("placed", lambda text: rows(text, keeps_places=True)),
        ):
            self.n[name] += overlap(of(truth), of(text))
            self.n[f"all {name}"] += len(of(truth))
            self.n[f"said {name}"] += len(of(text))

    def row(self) -> list[object]:
        means = [
            sum(part) / max(len(part), 1) for part in (self.recall, self.precision, self.order)
        ]
        counts = [
            f"{self.n[name]} of {self.n[f'all {name}']} ({self.n[f'said {name}']} said)"
            for name in ("headings", "rows", "placed")
        ]
        return [*(f"{mean:.3f}" for mean in means), *counts, f"{self.seconds:.2f}", self.n_failed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--peers", type=Path, help="a folder of installed packages")
    parser.add_argument("--missed", action="store_true", help="print what the first one misses")
    args = parser.parse_args()
    if args.peers:
        sys.path.append(str(args.peers))
    scores: dict[tuple[str, str], Score] = {}
    paths = [path for folder in args.folders for path in sorted(folder.iterdir())]
    for path in paths:
        truth_path = path.with_suffix(".md")
        if path.suffix not in SUFFIXES or not truth_path.is_file():
            continue
        truth = truth_path.read_text(encoding="utf-8")
        for name in args.only:
            score = scores.setdefault((path.suffix, name), Score())
            start = time.perf_counter()
            try:
                text = READERS[name](path)
            except ImportError as error:
                print(f"{name} is not installed: {error}", file=sys.stderr)
                args.only = [other for other in args.only if other != name]
                continue
            except Exception as error:  # of any library: it counts as failed
                print(f"{name}: {path.name}: {error}", file=sys.stderr)
                score.n_failed += 1
                text = ""
            score.seconds += time.perf_counter() - start
            score.add(truth, text)
            if args.missed and name == args.only[0]:
                print_missed(path.name, truth, text)
    columns = ["recall", "precision", "order", "headings", "rows", "rows, places", "s", "failed"]
    shown = [[suffix, name, *score.row()] for (suffix, name), score in scores.items()]
    print(table(["kind", "reader", *columns], shown))


def print_missed(name: str, truth: str, text: str) -> None:
    for what, of in (
        ("heading", headings),
        ("row", lambda text: rows(text, keeps_places=False)),
    ):
        missed = Counter(of(truth)) - Counter(of(text))
        said = Counter(of(text)) - Counter(of(truth))
        for sign, part in (("-", missed), ("+", said)):
            for entry in part.elements():
                print(f"{name}: {what} {sign} {entry}")


if __name__ == "__main__":
    main()
