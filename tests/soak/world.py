"""A folder of pipelines that start by themselves, and `paddock up` over it, as under systemd."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from paddock.runner.ledger.entries import Entry
from tests.benchmarks.processes import free_port
from tests.soak.arrivals import Folder
from tests.soak.judge import Kill, Mark
from tests.soak.killer import processes, roles

HERE = Path(__file__).parent
READY_S = 300.0
# Runs have 30 s to come to a border, then they are ended.
STOP_S = 300.0

# Every pipeline does the same around what makes it different: read, do, mark, write.
PIPELINE = """\
pipeline: 1
name: {name}
{models}
inputs:
  folder: {{type: dir, default: ./{folder}}}
on:
  watch: [{{path: "{{{{ inputs.folder }}}}", settle: 1s, batch: 2s, reconcile: {reconcile}{more}}}]
defaults: {{retry: {{times: 2, on: [timeout, worker]}}}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: {root}}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
{step}      - id: mark
        uses: soak.mark
        with:
          book: {book}
          kills: {kills}
          pipeline: {name}
          path: "{{{{ doc.relpath }}}}"
          sha256: "{{{{ doc.sha256 }}}}"
      - uses: files.write
        with:
          path: "out/{folder}/{{{{ doc.relpath }}}}.md"
          text: "{{{{ doc.sha256 }}}}\\n{{{{ steps.text.text }}}}"
returns: {{counts: steps.each.counts}}
"""

CHAT = "models:\n  writer: {ref: smollm2:135m, ctx: 2k, params: {max_tokens: 8}}"
EMBED = "models:\n  vec: {ref: all-minilm, role: embed}"
CHAT_STEP = """\
      - uses: chat
        with: {model: writer, prompt: "In one word: {{ steps.text.text }}"}
"""
EMBED_STEP = """\
      - uses: embed
        with: {model: vec, texts: ["{{ steps.text.text }}"]}
"""

TICK = """\
pipeline: 1
name: tick
on: {{schedule: [{{cron: "* * * * *", catch_up: latest}}]}}
steps:
  - uses: soak.mark
    with: {{book: {book}, pipeline: tick, path: tick, sha256: tick}}
"""

CALLED = """\
pipeline: 1
name: {name}
inputs:
  call: {{type: str, default: none}}
on:
  webhook: {{path: /{name}, inputs: {{call: "{{{{ payload.call }}}}"}}}}
steps:
  - uses: soak.mark
    with:
      book: {book}
      pipeline: {name}
      path: "{{{{ inputs.call }}}}"
      sha256: "{{{{ inputs.call }}}}"
  - uses: files.write
    with: {{path: "out/{name}/{{{{ inputs.call }}}}.md", text: "{{{{ inputs.call }}}}"}}
"""
CALLS = "calls"
"""The pipeline that is called by HTTP."""


@dataclass
class World:
    home: Path
    port: int = field(default_factory=free_port)
    folders: dict[str, Folder] = field(default_factory=dict)
    up: subprocess.Popen[bytes] | None = None
    n_starts: int = 0

    def __post_init__(self) -> None:
        for part in ("pipelines", "state", "plugin", "elsewhere"):
            (self.home / part).mkdir(parents=True, exist_ok=True)
        self._plug_in()
        self._pipeline("texts", "texts", 30, deletes="prune")
        self._pipeline("letters", "letters", 40, CHAT, CHAT_STEP)
        self._pipeline("notes", "notes", 40, EMBED, EMBED_STEP)
        self._pipeline("drop", "drop", 30, is_hot=True)
        (self.pipelines / "tick.yaml").write_text(TICK.format(book=self.book))
        called = CALLED.format(book=self.book, name=CALLS)
        (self.pipelines / f"{CALLS}.yaml").write_text(called)

    @property
    def pipelines(self) -> Path:
        """The folder that `paddock up` is given."""
        return self.home / "pipelines"

    @property
    def state_dir(self) -> str:
        return str(self.home / "state")

    @property
    def book(self) -> Path:
        return self.home / "marks.jsonl"

    @property
    def suicides(self) -> Path:
        """Where `soak.mark` writes down which processes died of a document."""
        return self.home / "suicides.jsonl"

    @property
    def log(self) -> Path:
        return self.home / "up.log"

    def _pipeline(
        self,
        name: str,
        folder: str,
        words: int,
        models: str = "",
        step: str = "",
        *,
        is_hot: bool = False,
        deletes: str = "keep",
    ) -> None:
        root = self.pipelines / folder
        root.mkdir(exist_ok=True)
        text = PIPELINE.format(
            name=name, folder=folder, models=models, step=step, book=self.book,
            root=f"./{folder}/processing" if is_hot else '"{{ inputs.folder }}"',
            more=", claim: move" if is_hot else f", deletes: {deletes}", reconcile="15s",
            kills=self.suicides,
        )  # fmt: skip
        (self.pipelines / f"{name}.yaml").write_text(text)
        made = Folder(name, root, self.home / "elsewhere", words, is_taken=is_hot)
        made.is_there.set()
        self.folders[name] = made

    def _plug_in(self) -> None:
        plugin = self.home / "plugin"
        (plugin / "soak_mark.py").write_bytes((HERE / "mark.py").read_bytes())
        facts = plugin / "soak_mark-1.0.dist-info"
        facts.mkdir(exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: soak-mark\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[paddock.steps]\nsoak.mark = soak_mark:Mark\n")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every command: a state of its own, room for one model at a time."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "PREFECT_"))}
        kept.pop("CI", None)
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(
                filter(None, (os.environ.get("PYTHONPATH"), str(self.home / "plugin")))
            ),
            "PADDOCK_HOME": self.state_dir,
            "PADDOCK_UP_HOST": f"127.0.0.1:{self.port}",
            "PADDOCK_HOST": "127.0.0.1:1",
            "PADDOCK_PROFILE_S": "0",
            "PADDOCK_NUM_THREAD": "1",  # threads without a core wait in barriers
            "PADDOCK_MAX_LOADED_MODELS": "1",
            "PADDOCK_MAX_WAIT": "2s",
        }

    def command(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("paddock")), *words]

    # `paddock up`

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.up = subprocess.Popen(
                self.command("up", str(self.pipelines)),
                cwd=self.home, env=self.environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.n_starts += 1

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        return self.up.pid if self.up is not None and self.up.poll() is None else None

    async def supervise(self, stop: asyncio.Event, after_s: float = 1.0) -> None:
        """Start it again whenever it has ended, until told otherwise."""
        while not stop.is_set():
            if self.pid is None:
                self.start()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), after_s)

    async def until_ready(self, limit_s: float = READY_S) -> None:
        """Wait until it says that it is ready.

        Raises:
            RuntimeError: it did not within the limit; the message has the end of its log.
        """
        until = time.monotonic() + limit_s
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=5) as client:
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"http://127.0.0.1:{self.port}/readyz")
                    if answer.status_code == 200:
                        return
                await asyncio.sleep(0.2)
        raise RuntimeError(f"`paddock up` is not ready within {limit_s:g} s:\n{self.last_words()}")

    async def stop(self) -> float:
        """Ask it to end; give the seconds that this took.

        Raises:
            RuntimeError: it did not end in time; it is killed then.
        """
        if self.up is None or self.up.poll() is not None:
            return 0.0
        began = time.monotonic()
        self.up.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.up.wait, STOP_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not stop within {STOP_S:g} s:\n{self.last_words()}") from None
        finally:
            self.sweep()
        return time.monotonic() - began

    def sweep(self) -> list[str]:
        """End all that is left of this world; give the command lines of what was."""
        left: list[str] = []
        for process in processes(self.state_dir):
            with contextlib.suppress(psutil.Error):
                left.append(" ".join(process.cmdline())[:120])
                process.kill()
        return left

    def last_words(self, n: int = 20_000) -> str:
        return self.log.read_text("utf-8", errors="replace")[-n:] if self.log.exists() else ""

    # What can be seen from outside

    def marks(self) -> list[Mark]:
        return [Mark(**row) for row in _rows(self.book)]

    def died(self) -> list[Kill]:
        return [Kill(**row) for row in _rows(self.suicides)]

    def outputs(self) -> dict[tuple[str, str], str]:
        """Return the version that each output was made of; None where it is not whole."""
        found = {}
        for name, file in self._output_files():
            written, _, text = file.read_bytes().partition(b"\n")
            relpath = file.relative_to(self.pipelines / "out" / name).as_posix()
            is_whole = hashlib.sha256(text).hexdigest().encode() == written
            found[name, relpath.removesuffix(".md")] = written.decode() if is_whole else "torn"
        for file in (self.pipelines / "out" / CALLS).glob("*.md"):
            found[CALLS, file.stem] = file.read_text()
        return found

    def _output_files(self) -> Iterator[tuple[str, Path]]:
        for name in self.folders:
            for file in (self.pipelines / "out" / name).rglob("*.md"):
                if file.is_file():
                    yield name, file

    def leftovers(self) -> list[str]:
        """Name the temporary files that lie among the outputs."""
        return [str(file) for file in self.pipelines.rglob("*.paddock-tmp*")]

    def quarantined(self) -> frozenset[tuple[str, str]]:
        """Return the quarantined items, as the ledger has them and hot folders show them."""
        found = {(name, e.key) for name, e in self._entries() if e.state == "quarantined"}
        for name, folder in self.folders.items():
            if folder.is_taken:
                failed = folder.root / "failed"
                found |= {(name, file.relative_to(failed).as_posix()) for file in failed.rglob("*")}
        return frozenset(found)

    def recorded(self) -> dict[tuple[str, str], float]:
        """Return when the entry of each item was made: (pipeline, path) → Unix time."""
        return {(name, entry.key): entry.at for name, entry in self._entries()}

    def _entries(self) -> list[tuple[str, Entry]]:
        from paddock.runner.ledger.ledger import Ledger

        with Ledger(self.pipelines / ".paddock", is_readonly=True) as ledger:
            return [
                (name, entry)
                for name in self.folders
                for scope in ledger.scopes_of(f"{name}.yaml")
                for entry in ledger.entries(scope).values()
            ]

    def memory_mb(self) -> dict[str, float]:
        """Return the private memory of each role, in MB; under `all`, of everything."""
        found: dict[str, float] = {"up": 0.0, "all": 0.0}
        for role, members in roles(self.state_dir).items():
            for process in members:
                with contextlib.suppress(psutil.Error):
                    own = process.memory_full_info().uss / 1e6
                    found[role] = found.get(role, 0.0) + own
                    found["all"] += own
        return found


def _rows(file: Path) -> list[dict[str, Any]]:
    """Read lines of JSON, save for one that a kill has cut."""
    found = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
