"""`kill -9` of `paddock run` in the middle of a digest: no finished part of it is asked again.

The command line as it is, the tree's parts asked of a server that answers by what it is asked: so
the last answer is that of an undisturbed run only if every part of the tree is.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http_server import Json, openai, said, serving
from tests.forked import Forked, ForkServer

PIPELINE = """\
models: {writer: {ref: m, ctx: 4k}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {file: doc.relpath, text: steps.text.text}
  - id: digest
    uses: reduce
    with: {over: "{{ steps.each.results }}", fanin: 3, prompt: "Fold: {{ notes | join(' + ') }}"}
  - {uses: files.write, with: {path: DIGEST.md, text: "{{ steps.digest.text }}"}}
"""
N_DOCUMENTS = 60
DELAY_S = 0.4  # of an answer: a kill falls into the middle of several, on a busy machine too


class Server:
    """A server of OpenAI's API. `prompts` are those that it was asked, in order.

    It answers with the numbers in a prompt, and with what makes this prompt this one; not to the
    prompt `held`.
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.held = self.url = ""

    def answer(self, body: Json) -> list[Json]:
        prompt = body["messages"][-1]["content"]
        self.prompts.append(prompt)
        time.sleep(DELAY_S)
        while prompt == self.held:
            time.sleep(0.05)
        return said(folded(prompt))


def folded(prompt: str) -> str:
    numbers = sorted({int(word) for word in prompt.split() if word.isdigit()})
    return " ".join([*map(str, numbers), "#" + hashlib.sha256(prompt.encode()).hexdigest()[:8]])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(openai(server.answer)) as listening:
        server.url = listening.url
        yield server


def start(folder: Path, server: Server, forks: ForkServer) -> Forked:
    unwanted = ("PREFECT_API_URL", "PADDOCK_LEDGER")
    environ = {name: value for name, value in os.environ.items() if name not in unwanted}
    environ["PADDOCK_HOME"] = str(folder / "home")
    command = ("run", "--local", "--json", "--pool", server.url, str(folder / "pipeline.yaml"))
    return forks.paddock(*command, environ=environ, cwd=folder)


def done(folder: Path, server: Server, forks: ForkServer) -> dict[str, Any]:
    process = start(folder, server, forks)
    out, err = process.communicate()
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


def laid(folder: Path) -> Path:
    (folder / "inbox").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    for number in range(N_DOCUMENTS):
        (folder / f"inbox/{number}.txt").write_text(f"{number} tells of the ferry")
    return folder


def finished(folder: Path) -> dict[str, tuple[str, float]]:
    """Return the prompts that the ledger knows the answers to: who asked, and when."""
    file = folder / ".paddock/ledger.sqlite"
    if not file.exists():
        return {}
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as ledger:
        try:
            rows = ledger.execute("select request, run, at from calls").fetchall()
        except sqlite3.OperationalError:  # its tables are just being made
            return {}
    return {json.loads(request)["messages"][-1][1]: (run, at) for request, run, at in rows}


@pytest.mark.may_take(180, "runs are killed and started again")
def test_a_digest_that_is_killed_while_it_folds_goes_on_with_what_was_folded(
    tmp_path: Path, server: Server, fork_server: ForkServer
) -> None:
    quiet, killed = laid(tmp_path / "quiet"), laid(tmp_path / "killed")
    done(quiet, server, fork_server)
    tree = set(server.prompts)
    server.held = server.prompts[-1]  # the last one, so that no run is over before it is killed
    assert len(server.prompts) == len(tree) == len(finished(quiet)) > N_DOCUMENTS / 3
    server.prompts.clear()

    known: dict[str, tuple[str, float]] = {}
    for part in (0.2, 0.5, 0.8):
        begun = len(server.prompts)
        process = start(killed, server, fork_server)
        while len(finished(killed)) < part * len(tree) and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.communicate()
        n_prompts = -1
        while n_prompts < len(server.prompts):  # it may have asked just before
            n_prompts = len(server.prompts)
            time.sleep(0.5)
        assert process.returncode == -9, "it was over too soon"
        assert not (killed / "DIGEST.md").exists()
        assert known.keys().isdisjoint(server.prompts[begun:]), "a finished fold is asked again"
        assert known.items() <= finished(killed).items(), "a finished fold was lost"
        known = finished(killed)
        assert known.keys() < tree, "of the same tree, and not all of it"

    server.held = ""
    begun = len(server.prompts)
    report = done(killed, server, fork_server)
    assert sorted(server.prompts[begun:]) == sorted(tree - known.keys())
    assert report["calls"] == len(tree) - len(known)
    assert (killed / "DIGEST.md").read_bytes() == (quiet / "DIGEST.md").read_bytes()
    assert (killed / "DIGEST.md").read_text().split("#")[0].split() == [
        str(number) for number in range(N_DOCUMENTS)
    ]
    begun = len(server.prompts)
    assert done(killed, server, fork_server)["calls"] == len(server.prompts[begun:]) == 0
