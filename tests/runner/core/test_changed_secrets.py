"""A secret that a step reads is an input; one that only opens a server may be rotated."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from paddock.engine.system.records import replace
from paddock.runner.api import plan
from paddock.runner.core.traces.parts import ordered_digest
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.world import ALL, World, reasons, settings

SERVER = Path(__file__).parents[2] / "fakes" / "small_mcp_server.py"
PRINTS = "import os, sys; print('PIN' in os.environ, len(os.environ.get('PIN', '')))"
COMMAND = f"""\
secrets: {{pin: {{env: PIN_OF_TESTS}}}}
steps:
  - id: each
    for_each: word in ["ferry", "pier"]
    do:
      - {{id: said, uses: run, with: {{command: [{sys.executable}, -c, "{PRINTS}"], env: {{PIN: "{{{{ secrets.pin }}}}"}}}}}}
    returns: steps.said.stdout
"""  # noqa: E501


def done(world: World, **given: str) -> Report:
    report = world.run(given, pool=world.pool, allow=ALL)
    assert report.status == "completed", report.message
    return report


def step(uses: str, given: str) -> str:
    """Return the pipeline with another step in place of the command."""
    head, tail = COMMAND.split("      - {id: said, ")
    step = f"      - {{id: said, uses: {uses}, with: {given}}}\n"
    return head + step + tail.partition("\n")[2].replace("said.stdout", "said")


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_pin(value: str) -> None:
        monkeypatch.setenv("PIN_OF_TESTS", value)

    set_pin("first-pin")
    return set_pin


@pytest.fixture
def world(tmp_path: Path, pin: Callable[[str], None]) -> World:
    return World(tmp_path, COMMAND)


SERVED = """\
secrets: {pin: {env: PIN_OF_TESTS}}
mcpServers: {fake: {command: PYTHON, args: [SERVER], env: {FAKE_KEY: "{{ secrets.pin }}"}}}
steps:
  - id: each
    for_each: word in ["ferry", "pier"]
    do: [{id: said, uses: tool, with: {name: fake.facts, args: {name: "{{ word }}"}}}]
    returns: steps.said.result
""".replace("PYTHON", sys.executable).replace("SERVER", str(SERVER))
INNER = COMMAND + "returns: {said: steps.each.results}\n"
OUTER = """\
steps:
  - id: each
    for_each: word in ["ferry", "pier"]
    do: [{id: said, uses: pipeline, with: {file: inner/inner.yaml}}]
    returns: steps.said.said
"""


@pytest.mark.parametrize(
    ("text", "beside", "why"),
    [
        (COMMAND, {}, "value changed: secrets.pin"),
        (step("tool", '{name: "tools.py:size", args: {text: "{{ secrets.pin }}"}}'),
         {"tools.py": "def size(text: str) -> int:\n    return len(text)\n"},
         "value changed: secrets.pin"),
        (step("chat", '{prompt: "Answer {{ secrets.pin }} {{ word }}"}'), {},
         "value changed: secrets.pin"),
        (SERVED, {}, "what its servers are given changed (step 'said')"),
        (OUTER, {"inner/inner.yaml": INNER}, "value changed: secrets.said.pin"),
    ],
    ids=["command", "function", "prompt", "server's environment", "sub-pipeline"],
)  # fmt: skip
def test_another_value_of_a_secret_that_a_step_is_given_makes_its_items_stale(
    tmp_path: Path, pin: Callable[[str], None], text: str, beside: dict[str, str], why: str
) -> None:
    world = World(tmp_path, text, beside)
    before = done(world)
    assert set(done(world).counts) == {"fresh"}
    pin("second-pin-is-longer")
    own = replace(settings(world.folder), allow=ALL)
    planned = plan(world.file, pool=FakePool(), settings=own)
    assert [*reasons(planned).values()] == [why, why]
    after = done(world)
    assert [*reasons(after).values()] == [why, why]
    assert after.calls == before.calls  # a prompt with another secret is another prompt
    assert set(done(world).counts) == {"fresh"}
    pin("first-pin")
    assert done(world).counts == after.counts


def test_a_key_that_only_opens_a_server_may_be_rotated(
    tmp_path: Path, pin: Callable[[str], None]
) -> None:
    text = step("chat", '{prompt: "Say {{ word }}"}')
    text = text.replace(
        "steps:\n",
        'models: {far: {ref: m, pool: {url: "http://127.0.0.1:9", '
        'key: "{{ secrets.pin }}"}}}\nsteps:\n',
        1,
    )
    world = World(tmp_path, text)
    done(world)
    pin("a-rotated-key")
    assert set(done(world).counts) == {"fresh"}


def rows(world: World) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(world.folder / ".paddock/ledger.sqlite")) as ledger:
        return ledger.execute(
            "select coalesce(i.parts, e.parts), coalesce(i.hash, e.hash) from items i "
            "join events e on e.n = i.ended order by i.key"
        ).fetchall()


def test_without_the_key_by_which_it_was_digested_a_secret_counts_as_unchanged(
    world: World, pin: Callable[[str], None]
) -> None:
    done(world)
    for file in world.folder.rglob("runs.key"):
        file.unlink()
    pin("second-pin")
    assert set(done(world).counts) == {"fresh"}
    pin("third-pin")
    assert set(done(world).counts) == {"stale"}


GIVEN = """\
inputs: {pin: {type: str, secret: true}, tone: plain}
steps:
  - id: each
    for_each: word in ["ferry", "pier"]
    do: [{id: said, uses: chat, with: {prompt: "{{ inputs.pin }} {{ inputs.tone }} {{ word }}"}}]
    returns: steps.said.text
"""


def test_a_secret_input_leaves_no_digest_that_can_be_guessed(tmp_path: Path) -> None:
    world = World(tmp_path, GIVEN)
    done(world, pin="4711")
    plain = ordered_digest("4711")
    assert all(plain not in parts for parts, _ in rows(world))
    report = done(world, pin="4712")
    assert set(reasons(report).values()) == {"value changed: inputs.pin"}
    assert report.calls == 2
