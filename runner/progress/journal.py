"""The journal of a run: a line of JSON for each event, for `paddock logs`, journald and machines.

A line has `time`, `run`, `pipeline`, `level` and `event`, and the fields of the event: an item's
`step`, `key`, `state`, `seconds`, `calls`, `tokens` and `error`. A journal that a kill or a full
disk cuts short loses nothing that the ledger knows.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from paddock.engine.system import no_links, private_files
from paddock.engine.system.records import Struct, asdict, field
from paddock.engine.system.text import completed_lines, shorten
from paddock.runner.config.pipeline_secrets import Redact, unredacted

from .report import outcome_of

if TYPE_CHECKING:
    from .report import Report
from .events import LONGEST_KEY, LONGEST_TEXT, ModelCall, Observer
from .item_states import APART, BAD, ItemState

LineWeight = Literal["often", "failure", "once"]
"""Events that a full journal leaves out, the first ones first."""
Write = Callable[[str, LineWeight], None]

MAX_BYTES: dict[LineWeight, float] = {
    "often": 32 * 1024**2,  # some 200,000 items
    "failure": 40 * 1024**2,
    "once": float("inf"),
}
MAX_WAITING_LINES = 20_000  # lines that wait for a slow disk or a pipe without a reader
FLUSH_INTERVAL_S = 0.2  # writing line by line would wake the thread 10,000 times in a short run
CLOSE_S = 5.0

_LEVELS = {"failed": "error", "quarantined": "warning"}
# Journals are bounded, but another file may have the name
MAX_JOURNAL_BYTES, MAX_LINE_BYTES = 64 * 1024**2, 16 * 1024**2
_SPEED_SPAN_S = 10.0


class _ItemInFlight(Struct):
    began: float
    n_calls: int = 0
    n_tokens: int = 0
    chats: list[str] = field(default_factory=list)
    """Their hashes, in order."""
    is_cached: bool = False
    """Whether the ledger had the answer of one: then an earlier run made the call."""


class RunJournal(Observer):
    def __init__(self, write: Write, redact: Redact = unredacted, *, trigger: str = "") -> None:
        self._write = write
        self._redact = redact
        self._trigger = trigger
        self._head: dict[str, Any] = {}
        """Run and pipeline; empty until the run has begun."""
        self._underway: dict[tuple[str, str], _ItemInFlight] = {}
        self._n_written = 0

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        self._head = {"run": run, "pipeline": self._redact(pipeline)}
        self._line("began", "once", trigger=self._trigger, steps=list(steps))

    def step(self, step: str, total: int | None, fresh: int) -> None:
        self._line("step", "once", step=step, items=total, fresh=fresh)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        place = (step, key)
        if state == "running":
            self._underway.setdefault(place, _ItemInFlight(time.monotonic()))
            return
        was = self._underway.pop(place, _ItemInFlight(time.monotonic()))
        self._line(
            "item",
            "failure" if state in _LEVELS else "often",
            level=_LEVELS.get(state, "info"),
            step=step,
            key=self._text(key, LONGEST_KEY),
            state=state,
            seconds=round(time.monotonic() - was.began, 3),
            calls=was.n_calls,
            tokens=was.n_tokens,
            chats=was.chats if was.is_cached else None,
            error=self._text(detail, LONGEST_TEXT),
        )

    def call(self, step: str, key: str, call: ModelCall) -> None:
        was = self._underway.get((step, key))
        if was is None:
            return
        was.is_cached |= call.is_cached
        if call.kind == "chat":
            was.chats.append(call.hash)
        if not call.is_cached:
            was.n_calls += 1
            was.n_tokens += call.usage.prompt_tokens + call.usage.completion_tokens

    def tokens(self, n: int) -> None:
        self._n_written += n

    def time_left(self, step: str, seconds: float) -> None:
        """Write it with the tokens that the run has generated so far."""
        left_s = round(seconds, 1)
        self._line("time_left", "often", step=step, seconds=left_s, written=self._n_written)

    def note(self, text: str) -> None:
        self._line("note", "often", text=self._text(text, LONGEST_TEXT))

    def stops(self, text: str) -> None:
        self._line("note", "often", text=self._text(text, LONGEST_TEXT), is_stop=True)

    def ended(self, report: Report) -> None:
        """Write how the run ended; one that never began has no line."""
        if not self._head:
            return
        self._line(
            "ended",
            "once",
            level=_LEVELS.get(report.status, "info"),
            status=report.status,
            outcome=outcome_of(report.status, asdict(report.quarantine())),
            seconds=round(report.seconds, 3),
            counts={state: n for state, n in report.counts.items() if n},
            calls=report.calls,
            cached_calls=report.cached_calls,
            tokens=dict(report.tokens),
            message=self._text(report.message, LONGEST_TEXT),
            details=report.log,
        )

    def _text(self, text: str | None, longest: int) -> str | None:
        return None if text is None else shorten(self._redact(text), longest)

    def _line(self, event: str, weight: LineWeight, level: str = "info", **details: Any) -> None:
        """Write one line; empty fields are left out."""
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        facts = {name: value for name, value in details.items() if value not in (None, "")}
        line = {"time": at, **self._head, "level": level, "event": event, **facts}
        # A document's name may hold lone surrogates, which no UTF-8 file takes: they are escaped.
        self._write(json.dumps(line), weight)


class LineWriter:
    """Writes lines in a thread of its own, so that a slow reader does not delay a run.

    A context manager. A file is bounded (`MAX_BYTES`), a stream is not; lines that were left out
    are counted in a last line. After an error nothing more is written.
    """

    def __init__(self, out: Path | IO[str]) -> None:
        self._out = out
        self._n_bytes = 0
        self._n_left_out = 0
        self._waiting: deque[tuple[str, LineWeight]] = deque()
        self._wake = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def __enter__(self) -> LineWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the waiting lines; wait at most 5 s for a pipe without a reader."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(CLOSE_S)

    def __call__(self, line: str, weight: LineWeight) -> None:
        if len(self._waiting) >= MAX_WAITING_LINES:
            self._n_left_out += 1
            return
        self._waiting.append((line, weight))
        if weight != "often":
            self._wake.set()

    def _work(self) -> None:
        # A full disk (also at the end, for what is not written yet), a reader that left, a stream
        # that is closed.
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            out = self._out
            stream = None if isinstance(out, Path) else out
            while True:
                self._wake.wait(FLUSH_INTERVAL_S)
                is_last = self._is_closed
                self._wake.clear()
                taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
                lines = [line for line, weight in taken if self._has_room(line, weight)]
                if is_last and self._n_left_out:
                    lines.append(json.dumps({"event": "left_out", "lines": self._n_left_out}))
                text = "".join(f"{line}\n" for line in lines)
                if text:
                    if stream is None:  # at its first line: a run that never begins has none
                        assert isinstance(out, Path)
                        private_files.private_folder(out.parent)
                        stream = stack.enter_context(private_files.open_private(out, "a"))
                    stream.write(text)
                    stream.flush()
                if is_last:
                    return

    def _has_room(self, line: str, weight: LineWeight) -> bool:
        self._n_bytes += len(line) + 1
        if not isinstance(self._out, Path) or self._n_bytes <= MAX_BYTES[weight]:
            return True
        self._n_bytes -= len(line) + 1
        self._n_left_out += 1
        return False


class JournalTail:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self._rest = b""

    def new_lines(self) -> list[dict[str, Any]]:
        """Return the lines written since the last call; none if there is no file."""
        try:
            with no_links.open_named(self._file) as stream:  # a pipe would be waited for
                stream.seek(self._at)
                found = stream.read(MAX_JOURNAL_BYTES)
        except OSError:
            return []
        self._at += len(found)
        texts, self._rest = completed_lines(self._rest, found)
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""  # another file's: what follows is no line of ours
        lines = []
        for text in texts:
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
        return [line for line in lines if line and isinstance(line, dict)]


class JournalProgress:
    def __init__(self, file: Path) -> None:
        self._tail = JournalTail(file)
        self._totals: dict[str, int] = {}
        self._ended: Counter[str] = Counter()
        self._ends_at: dict[str, float] = {}
        self._written: deque[tuple[float, int]] = deque()
        """When, and how many tokens the run had generated by then."""
        self.not_done: Counter[str] = Counter()
        """Items that ended otherwise than done, by state: `waiting`, `skipped`, `failed`."""
        self.is_stopping = False

    def update(self) -> tuple[int, int]:
        """Read new lines; return how many items have ended, and how many are known."""
        for line in self._tail.new_lines():
            step = str(line.get("step"))
            match line.get("event"):
                case "step" if isinstance(line.get("items"), int):
                    self._totals[step] = line["items"]
                    self._ended[step] += int(line.get("fresh") or 0)
                case "item":
                    state = line.get("state")
                    is_nested = step not in self._totals  # items of a nested block
                    if not is_nested:
                        self._ended[step] += 1
                    if state in BAD:
                        self.not_done["failed"] += 1
                    elif state in APART and not is_nested:
                        self.not_done[state] += 1
                case "time_left":
                    with contextlib.suppress(KeyError, TypeError, ValueError):  # no line of ours
                        at = datetime.fromisoformat(line["time"]).timestamp()
                        self._ends_at[step] = at + float(line["seconds"])
                        self._written.append((at, int(line["written"])))
                        while len(self._written) > 2 and self._written[1][0] <= at - _SPEED_SPAN_S:
                            self._written.popleft()
                case "note":
                    self.is_stopping |= line.get("is_stop") is True
        return sum(self._ended.values()), sum(self._totals.values())

    def seconds_left(self, now: float) -> float | None:
        """Return the run's own estimate for the step whose items go on; None: none yet."""
        open_steps = [step for step, n in self._totals.items() if self._ended[step] < n]
        ends = [self._ends_at[step] for step in open_steps if step in self._ends_at]
        return max(0.0, max(ends) - now) if ends else None

    def speed(self) -> float | None:
        """Return the tokens generated in a second, over the last 10 s; None: not known."""
        if len(self._written) < 2:
            return None
        (since, n_then), (until, n_now) = self._written[0], self._written[-1]
        return (n_now - n_then) / (until - since) if until > since and n_now > n_then else None
