"""What readers of documents find in public corpora: words, order, headings, rows of tables, time.

uv run python tests/benchmarks/readers.py FOLDER… --peers …/bin/python

Folders: docling `tests/data`, markitdown `packages/markitdown/tests`, unstructured `example-docs`,
pdfplumber `tests/pdfs`, py-pdf `sample-files`, pdf.js `test/pdfs`, Apache Tika and POI
`test-documents` and `test-data`, flanker and mail-parser `tests`. The peers (markitdown, pypdf,
kreuzberg, pymupdf4llm, for mails also mail-parser and extract-msg) are in an environment of their
own, whose Python `--peers` names. Each document is read by all in turns, without OCR.

The truth is the Markdown beside a document (`groundtruth/`, `expected_outputs/`); without it, the
words that at least two of the readers find. What prints a mail's source in place of its parts has
no vote on that mail: two that do so would make the truth. Recall and precision are of words, with
their numbers. Of these are none that no reader of the document sees: addresses of pictures and of
places within the page, the front matter that some write before a page, names in a directory of
Exchange, the notes of a truth's maker. Order is the share of the words that are unique in both
texts which stand in the truth's order. Headings and rows are counted against the truth's Markdown
alone: a row counts where a line of a table, or one with tabs, has the same cells; for "rows,
places" each also in its column, between the same empty ones. A document that a reader refuses
counts as empty.
"""

import argparse
import json
import re
import select
import statistics
import subprocess
import sys
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import NOTHING, circumstances, table
from tests.benchmarks.readers_worker import ONLY, READERS

EARLIER = "paddock, earlier"
WORKER = Path(__file__).with_name("readers_worker.py")
KINDS = {
    **{f".{kind}": kind for kind in ("pdf", "docx", "pptx", "xlsx", "html", "epub", "eml", "msg")},
    **{f".{kind}": kind for kind in ("odt", "ods", "odp", "rtf", "doc", "xls", "ppt")},
}
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿]|(?:(?![぀-ヿ㐀-䶿一-鿿])[^\W_])+")
_UNSHOWN = re.compile(
    r"<!-- (?:image|missing-[\w-]+|formula-not-decoded) -->"  # docling's own words
    r"|(!\[(?:[^\[\]\\]|\\.)*\])\([^()\n]*\)"  # the address of a picture
    r"|(?<=\])\(#[^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)"  # a place within the page
    r"|/o=[^<>\n]*?/cn=recipients/cn=[^<>\n;,]*"  # of a directory of Exchange
    r"|^---\n+(?:(?:## )?[\w-]+: .*\n+)+(?:---$)?",  # what a page's head says
    re.IGNORECASE | re.MULTILINE,
)
_BOUNDARY = re.compile(rb"""boundary=["']?([^"'\s;]{6,})""", re.IGNORECASE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_RULE = re.compile(r"[\s|:-]+")


@dataclass(frozen=True)
class Found:
    """What one reader made of one document."""

    recall: float
    precision: float | None
    order: float | None
    seconds: float
    is_read: bool
    counts: tuple[tuple[int, int], ...]
    """Of headings, rows, and rows with their values in their columns: found, and of how many."""


class Worker:
    """A reader's process, started again where it dies or takes too long."""

    def __init__(self, python: str, name: str, timeout_s: float) -> None:
        self._command = [python, str(WORKER), name]
        self._timeout_s = timeout_s
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"{' '.join(self._command)} does not start")

    def read(self, path: Path) -> tuple[str, float]:
        """Return text and seconds; no text where it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        if select.select([self._process.stdout], [], [], self._timeout_s)[0] and (
            line := self._process.stdout.readline()
        ):
            answer = json.loads(line)
            return answer["text"], float(answer["seconds"])
        self.end()
        self._start()
        return "", self._timeout_s

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def words(text: str) -> list[str]:
    """Return the words in their order; of Chinese and Japanese each sign.

    >>> words("**Zwei** Preise: 3,50 日本")
    ['zwei', 'preise', '3', '50', '日', '本']
    """
    text = unescape(_UNSHOWN.sub(r"\1", text))
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def order(truth: Sequence[str], found: Sequence[str]) -> float | None:
    """Return the longest run in the truth's order, as a share of the words that both have once.

    >>> order("a b c d".split(), "a c b d".split()), order(["a"], ["b"])
    (0.75, None)
    """
    once = {word for word, n in Counter(truth).items() if n == 1}
    places = {word: place for place, word in enumerate(found)}
    n_found = Counter(found)
    line = [places[word] for word in truth if word in once and n_found[word] == 1]
    tails: list[int] = []
    for place in line:
        at = bisect_left(tails, place)
        tails[at : at + 1] = [place]
    return len(tails) / len(line) if len(line) > 1 else None


def headings(text: str) -> Counter[str]:
    return Counter(map(_folded, _HEADING.findall(text)))


def rows(text: str, *, keeps_places: bool) -> Counter[tuple[str, ...]]:
    r"""Return the cells of each row of a table, with its empty ones or without.

    >>> list(rows("| A | | 3 b |\n|---|---|---|\nx\ty", keeps_places=True))
    [('a', '', '3b'), ('x', 'y')]
    """
    found = Counter[tuple[str, ...]]()
    for line in text.splitlines():
        is_row = line.strip().startswith("|")
        if not (is_row or "\t" in line.strip()) or (is_row and _RULE.fullmatch(line)):
            continue
        inner = line.strip().removeprefix("|").removesuffix("|") if is_row else line
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|" if is_row else "\t", inner)]
        shown = [_folded(cell) or cell for cell in cells]
        found[tuple(cell for cell in shown if cell or keeps_places)] += 1
    return found


def _folded(text: str) -> str:
    """Return letters and digits alone, so that marks and escapes do not count."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def truth_of(path: Path) -> str | None:
    """Return the Markdown that a corpus has for a document; markitdown has it for PDFs alone."""
    beside, outputs = path.parent.parent / "groundtruth", path.parent / "expected_outputs"
    files = [beside / f"{path.name}.md", beside / f"{path.stem}.md"]
    files += [outputs / f"{path.stem}.md"] if path.suffix == ".pdf" else []
    return next((file.read_text("utf-8") for file in files if file.is_file()), None)


def boundaries(path: Path) -> list[str]:
    """Return what separates the parts of a mail: a text that has one is the mail's source."""
    data = path.read_bytes().replace(b"\0", b"") if path.suffix == ".eml" else b""
    return [one.decode("latin-1") for one in set(_BOUNDARY.findall(data))]


def compared(
    texts: Mapping[str, tuple[str, float]], truth: str | None, boundaries: Sequence[str] = ()
) -> dict[str, Found]:
    """Measure what each reader made of a document; empty where there is nothing to compare."""
    lists = {name: words(text) for name, (text, _) in texts.items()}
    counts = {name: Counter(found) for name, found in lists.items()}
    if truth is None:
        sources = {n for n, (text, _) in texts.items() if any(b in text for b in boundaries)}
        voters = [count for name, count in counts.items() if name not in {EARLIER, *sources}]
        every = set[str]().union(*voters)
        seconds = {w: sorted((c[w] for c in voters), reverse=True)[1:2] for w in every}
        wanted = Counter({word: n[0] for word, n in seconds.items() if n and n[0]})
        longest = max(lists, key=lambda name: sum((counts[name] & wanted).values()))
        line = [word for word in lists[longest] if word in wanted]
    else:
        line = words(truth)
        wanted = Counter(line)
    n = sum(wanted.values())
    if not n:
        return {}
    measures: list[Callable[[str], Counter[Any]]] = [headings]
    measures += [partial(rows, keeps_places=keeps) for keeps in (False, True)]
    found: dict[str, Found] = {}
    for name, (text, took) in texts.items():
        n_same, n_own = sum((counts[name] & wanted).values()), len(lists[name])
        parts = tuple(
            (
                sum((measure(text) & measure(truth or "")).values()),
                sum(measure(truth or "").values()),
            )
            for measure in measures
        )
        precision = n_same / n_own if n_own else None
        right_order = order(line, lists[name])
        found[name] = Found(n_same / n, precision, right_order, took, bool(n_own), parts)
    return found


def documents(folders: Sequence[Path], most: int) -> Iterator[tuple[str, list[Path]]]:
    """Yield the documents of each kind: those with a truth, and others up to `most`, evenly."""
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (kind := KINDS.get(path.suffix.lower())):
                by_kind[kind].append(path.resolve())
    for kind, paths in by_kind.items():
        known = [path for path in paths if truth_of(path) is not None]
        others = [path for path in paths if path not in set(known)]
        n = max(0, most - len(known))
        yield kind, known + others[:: max(1, -(-len(others) // n))] if n else known


def kind_rows(kind: str, measured: Sequence[Mapping[str, Found]]) -> Iterator[list[object]]:
    for name in dict.fromkeys(name for document in measured for name in document):
        found = [document[name] for document in measured if name in document]
        precise = [one.precision for one in found if one.precision is not None]
        ordered = [one.order for one in found if one.order is not None]
        counted = []
        for parts in zip(*(one.counts for one in found), strict=True):
            n_found, n = map(sum, zip(*parts, strict=True))
            counted.append(f"{n_found} of {n}" if n else NOTHING)
        yield [
            kind,
            name,
            f"{sum(one.is_read for one in found)} of {len(found)}",
            f"{statistics.fmean(one.recall for one in found):.3f}",
            f"{statistics.fmean(precise):.3f}" if precise else NOTHING,
            f"{statistics.fmean(ordered):.3f}" if ordered else NOTHING,
            *counted,
            statistics.median(one.seconds for one in found),
        ]


def print_missed(
    path: Path, texts: Mapping[str, tuple[str, float]], found: Mapping[str, Found]
) -> None:
    """Print where a peer finds more words or a better order, and the words of all peers."""
    ours, peers = found["paddock"], [one for name, one in found.items() if name != "paddock"]
    best = max(one.recall for one in peers), max(one.order or 0 for one in peers)
    if best[0] > ours.recall + 0.02 or best[1] > (ours.order or 0) + 0.02:
        counts = [Counter(words(text)) for name, (text, _) in texts.items() if name != "paddock"]
        lacking = counts[0]
        for count in counts[1:]:
            lacking = lacking & count
        lacking -= Counter(words(texts["paddock"][0]))
        print(path, *(f"{name} {one.recall:.3f} {one.order}" for name, one in found.items()))
        print("   ", " ".join(list(lacking.elements())[:40]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--peers", help="the Python of the environment that has the peers")
    parser.add_argument("--paddock", default=sys.executable, help="the Python that has Paddock")
    parser.add_argument("--earlier", help="the Python that has an earlier version, without a vote")
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--most", type=int, default=60, help="documents of each kind")
    parser.add_argument("--missed", action="store_true", help="where a peer finds more, and what")
    parser.add_argument("--seconds", type=float, default=30.0, help="for a document")
    args = parser.parse_args()
    pythons = {name: args.paddock if name == "paddock" else args.peers for name in READERS}
    workers = {name: Worker(p, name, args.seconds) for name, p in pythons.items() if p}
    if args.earlier:
        workers[EARLIER] = Worker(args.earlier, "paddock", args.seconds)
    lines: list[list[object]] = []
    for kind, paths in sorted(documents(args.folders, args.most)):
        if args.only and kind not in args.only.split(","):
            continue
        names = [name for name in workers if ONLY.get(name, kind) == kind]
        measured = []
        for path in paths:
            texts = {name: workers[name].read(path) for name in names}
            measured.append(compared(texts, truth_of(path), boundaries(path)))
            if args.missed and measured[-1]:
                print_missed(path, texts, measured[-1])
        print(f"{kind}: {len(paths)} documents", file=sys.stderr, flush=True)
        lines += kind_rows(kind, measured)
    for worker in workers.values():
        worker.end()
    print(circumstances(documents_of_a_kind=args.most))
    columns = ["kind", "reader", "read", "recall", "precision", "order", "headings", "rows"]
    print(table([*columns, "rows, places", "s, median"], lines))


if __name__ == "__main__":
    main()
