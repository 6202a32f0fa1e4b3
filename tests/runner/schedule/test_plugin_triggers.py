"""Triggers of installed packages: under `on` as those that are built in."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paddock.engine.settings import PoolSettings
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import PLANNED_TRIGGERS
from paddock.runner.api import validate
from paddock.runner.bind.trigger_plugins import load_trigger, trigger_points
from paddock.runner.cli.installed_schema import installed_schema
from paddock.runner.cli.step_catalogue import catalogue_text, list_installed
from paddock.runner.schedule.pipeline_triggers import triggers_of
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.triggers import Trigger
from paddock.runner.settings import Settings
from paddock.steps.plugins import plugins

PACKAGE = '''
from dataclasses import dataclass, field
from paddock.pipelines.keys import Keys

class TickKeys(Keys):
    text: str
    times: int = 1

@dataclass(frozen=True)
class Tick:
    """Puts orders at once.

    More about it.
    """
    Keys, kind = TickKeys, "tick"
    keys: TickKeys
    triggered: object = field(repr=False, compare=False)

    @property
    def key(self):
        if self.keys.text == "raise":
            raise RuntimeError("no such thing")
        if self.keys.text == "webhook":
            return "webhook /x"
        return f"tick {self.keys.text}"

    async def run(self, desk):
        for n in range(self.keys.times):
            await desk.order(f"tick {n}", inputs={"text": self.keys.text}, is_promised=True)

    async def done(self, order): ...

    def status(self, now):
        if self.keys.text == "mute":
            raise RuntimeError("nothing to say")
        return {"text": f"ticks '{self.keys.text}'"}

class NoKeys:
    kind = "no_keys"
'''
STEPS = """\
inputs: {text: {type: str, required: true}}
steps: [{uses: files.write, with: {path: out.txt, text: "{{ inputs.text }}"}}]
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with the triggers `tick`, `no_keys` and `gone`."""
    folder = tmp_path / "site"
    facts = folder / "tick_trigger-1.0.dist-info"
    facts.mkdir(parents=True)
    (folder / "tick_trigger.py").write_text(PACKAGE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tick-trigger\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[paddock.triggers]\ntick = tick_trigger:Tick\nno_keys = tick_trigger:NoKeys\n"
        "gone = tick_trigger_gone:Tick\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    for known in (plugins, load_trigger):
        known.cache_clear()
    yield
    for known in (plugins, load_trigger):
        known.cache_clear()


def read(folder: Path, text: str) -> TriggeredPipeline | None:
    file = folder / "p.yaml"
    file.write_text(text)
    return read_triggered_pipeline(file, text, Settings(PoolSettings(), folder))


def served(folder: Path, on: str, more: str = "") -> tuple[TriggeredPipeline, list[Trigger]]:
    triggered = read(folder, f"on: {on}\n{more}{STEPS}")
    assert triggered is not None
    return triggered, triggers_of(triggered)


@pytest.mark.parametrize(
    ("on", "place", "words", "remedy"),
    [
        ("{tick: {text: a}}", None, "", ""),
        ("{tick: {text: '{{ secrets.word }}'}}", None, "", ""),
        ("{tick: {text: a, times: often}}", "1:29",
         "'times' must be a whole number; 'often' is text.", ""),
        ("{tick: [{text: a}, {text: 5}]}", "1:31",
         "'text' must be text; '5' is a whole number.", "Put it in quotes."),
        ("{tick: {text: a, tims: 2}}", "1:22", "unknown key 'tims'.",
         "Known: 'text', 'times'. Did you mean 'times'?"),
        ("{tick: {times: 2}}", "1:12", "the key 'text' is missing here.", "Add `text: …`."),
        ("{tock: {text: a}}", "1:6", "unknown key 'tock'.",
         "Known: 'schedule', 'watch', 'webhook', 'window', 'notify', 'gone', 'no_keys', 'tick'. "
         "Did you mean 'tick'?"),
        ("{tick: {text: '{{ inputs.txt }}'}}", "1:19", "there is no input 'txt'.",
         "Known: 'text'. Did you mean 'text'?"),
        ("{no_keys: {}}", "1:6", "trigger 'no_keys' of package 'tick-trigger' cannot be used: "
         "tick_trigger:NoKeys has no `Keys` that is a Pydantic model.",
         "Update or remove 'tick-trigger'."),
        ("{gone: {}}", "1:6", "trigger 'gone' of package 'tick-trigger' cannot be used: "
         "ModuleNotFoundError: No module named 'tick_trigger_gone'.",
         "Update or remove 'tick-trigger'."),
    ],
)  # fmt: skip
def test_its_entries_are_checked_as_those_of_built_in_triggers(
    tmp_path: Path, on: str, place: str | None, words: str, remedy: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"on: {on}\nsecrets: {{word: {{env: A_WORD}}}}\n{STEPS}")
    faults = validate(file).faults
    assert [f"{fault.mark.line}:{fault.mark.column}" for fault in faults if fault.mark] == (
        [place] if place else []
    )
    if words:
        assert (faults[0].message, faults[0].remedy) == (words, remedy)


def test_it_is_in_the_lists_and_in_the_schema_of_editors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list_installed()
    text = catalogue_text(found)
    assert re.search(r"\n  tick\(text, times\) +Puts orders at once. \[tick-trigger\]", text)
    assert re.search(r"\n  schedule\(cron, .*\n? +A time at which the pipeline runs.", text)
    expected = [f"trigger '{name}' of package 'tick-trigger'" for name in ("gone", "no_keys")]
    assert [words.partition(" cannot")[0] for words in found.broken] == expected
    on = installed_schema()["properties"]["on"]
    assert on["additionalProperties"] is False
    entry, entries = on["properties"]["tick"]["anyOf"]
    assert entries["items"] == entry and entry["required"] == ["text"]
    assert "no_keys" not in on["properties"] and "trigger 'no_keys'" in capsys.readouterr().err


def test_what_cannot_be_made_says_why_and_keeps_nothing_else_from_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "[{text: a}, {text: raise}, {text: a}, {text: '{{ secrets.word }}'}, {text: b}, "
    entries += "{text: webhook}]"
    secrets = "secrets: {word: {env: A_WORD}}\n"
    monkeypatch.delenv("A_WORD", raising=False)
    _, made = served(tmp_path, f"{{tick: {entries}}}", secrets)
    told = [trigger.status(datetime.now(UTC))["text"].partition("\n")[0] for trigger in made]
    place = re.escape(str(tmp_path / "p.yaml"))
    for text, expected in zip(told, [
        "ticks 'a'",
        "not served: `on.tick.1` cannot be made: RuntimeError: no such thing",
        "not served: `on.tick.2`: another entry has the key 'tick a'.",
        f"not served: {place}:2:.*: the environment variable A_WORD is not set.",
        "ticks 'b'",
        "not served: `on.tick.5`: its `key` 'webhook /x' does not begin with 'tick'.",
    ], strict=True):  # fmt: skip
        assert re.fullmatch(expected, text), text
    monkeypatch.setenv("A_WORD", "cast")
    _, made = served(tmp_path, f"{{tick: {entries}}}", secrets)
    assert made[3].key == "tick cast"


def test_every_input_of_its_pipeline_is_untrusted_text(tmp_path: Path) -> None:
    run = STEPS.replace("files.write", "run").replace(
        'path: out.txt, text: "{{ inputs.text }}"', 'command: [sh, -c, "{{ inputs.text }}"]'
    )
    with pytest.raises(PipelineError, match="text"):
        read(tmp_path, f"on: {{tick: {{text: a}}}}\n{run}")


def test_each_module_of_a_trigger_is_found_by_its_key() -> None:
    own = {name for name, (point, *_) in trigger_points().items() if point.dist is None}
    assert own == {*PLANNED_TRIGGERS}
    for name, keys in PLANNED_TRIGGERS.items():
        assert load_trigger(name).Keys is keys
