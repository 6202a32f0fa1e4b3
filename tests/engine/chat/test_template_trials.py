"""Chat templates of others: computed in a process of its own, as here, or refused in a sentence."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.engine import trial_process
from paddock.engine.chat.chat_template import ChatTemplate, template_capabilities
from paddock.engine.chat.template_trials import ForeignTemplate, TemplateTrials
from paddock.engine.errors import BadRequest, TemplateTooLarge, TemplateUnreadable, TrialTimeout
from paddock.engine.models.model_finder import ModelFiles
from paddock.engine.request import Message, ToolCall
from paddock.engine.system.frame_processes import FrameProcess
from tests.engine.chat.answer_parsing import TEMPLATES, WEATHER


@pytest.fixture(scope="module")
def trials() -> Iterator[TemplateTrials]:
    trials = TemplateTrials()
    with pytest.MonkeyPatch.context() as patch:
        # Where other tests use the machine, the lowest priority takes minutes.
        patch.setattr(trial_process, "BRIEF_S", math.inf)
        patch.setattr(trial_process, "TRIAL_WALL_S", 600)
        yield trials
    trials.close()


TALK = (
    Message("user", "<|im_start|> Weather in Rome?", images=(b"a picture",)),
    Message("assistant", "", tool_calls=(ToolCall("get_weather", {"city": "Rome", "days": 1}),)),
    Message("tool", "21°", tool_name="get_weather"),
)


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.glob("*.jinja")))
def test_a_template_of_a_request_renders_as_the_files_own(
    trials: TemplateTrials, name: str
) -> None:
    source = (TEMPLATES / name).read_text("utf-8")
    facts: dict[str, Any] = {"source": source, "bos": "<s>", "eos": "</s>"}
    facts |= {"control_tokens": ["<|im_start|>", "<|im_end|>"], "ends": ["<|im_end|>"]}
    foreign = ForeignTemplate(facts, trials)
    own = ChatTemplate(**facts)
    assert foreign.chat_format == own.chat_format
    options: dict[str, Any] = {"tools": [WEATHER], "think": False, "variables": {"datetime": "x"}}
    assert foreign.render(TALK, **options) == own.render(TALK, **options)
    assert trials.capabilities(source, None) == sorted(template_capabilities(source, None))


GROWS = "{% set ns = namespace(x=[1]) %}{% for _ in range(99999) %}{% set ns.x = ns.x + ns.x %}"
COMPUTES = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LATER = "{% if messages[0].content == 'now' %}" + COMPUTES + "{% endif %}{{ messages }}"


@pytest.mark.parametrize(
    ("source", "kind", "why"),
    [
        (GROWS + "{% endfor %}", BadRequest, "makes a list or mapping of more than 1,000,000"),
        (COMPUTES, BadRequest, "it takes (more than 1,000,000 steps|longer than 3 s)"),
        (LATER, BadRequest, "it takes (more than 1,000,000 steps|longer than 3 s)"),
        ("{% for %}", TemplateUnreadable, "cannot be read"),
        ("x" * 100_001, TemplateTooLarge, "at most 100,000 characters"),
        ("{{" + "[" * 5000, TemplateTooLarge, "nested too deeply"),
    ],
)
def test_a_template_that_costs_too_much_ends_in_a_sentence(
    trials: TemplateTrials, source: str, kind: type[BadRequest], why: str
) -> None:
    with pytest.raises(kind, match=why):
        facts = {"source": source, "bos": "", "eos": ""}
        ForeignTemplate(facts, trials).render([Message("user", "now")])


SLOW = """
import time
from paddock.engine.system.frames import answer_frames, pack_frame, take_pipes
def answer(order):
    time.sleep(4 * bool(order))
    return pack_frame({"capabilities": ["tools"]})
answer_frames(*take_pipes(), answer)
"""


def test_what_a_busy_machine_does_not_compute_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").touch()
    files = ModelFiles(tmp_path)
    files._templates._process = FrameProcess([sys.executable, "-c", SLOW])
    monkeypatch.setattr(trial_process, "TRIAL_WALL_S", 0.1)
    with pytest.raises(TrialTimeout):
        files.capabilities(tmp_path / "m.gguf", None, "{{ tools }}")
    monkeypatch.undo()
    assert ModelFiles(tmp_path).capabilities(tmp_path / "m.gguf", None, "{{ tools }}") == ["tools"]


def test_what_a_models_template_supports_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    file.touch()
    source = "{{ tools }}"
    assert ModelFiles(tmp_path).capabilities(file, None, source) == ["tools"]
    monkeypatch.setattr(TemplateTrials, "capabilities", lambda *_: pytest.fail("asked again"))
    assert ModelFiles(tmp_path).capabilities(file, None, source) == ["tools"]
