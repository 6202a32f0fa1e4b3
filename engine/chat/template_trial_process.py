"""Process that parses, probes and renders chat templates of others, for `template_trials`."""

from __future__ import annotations

import json
from functools import lru_cache

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Tool
from paddock.engine.system.frames import FrameHead
from paddock.engine.trial_process import answer_trials
from paddock.engine.wire import from_plain, to_plain

from .chat_template import ChatTemplate, template_capabilities

_template = lru_cache(16)(lambda facts: ChatTemplate(**json.loads(facts)))


def answer(order: FrameHead) -> FrameHead:
    if "own" in order:
        return {"capabilities": sorted(template_capabilities(order["own"], order["of_file"]))}
    try:
        template = _template(json.dumps(order["template"]))
        if "messages" not in order:
            return {"format": to_plain(template.chat_format)}
        messages = from_plain(tuple[Message, ...], order["messages"])
        tools = from_plain(tuple[Tool, ...], order["tools"])
        return {"pieces": to_plain(template.render(messages, tools=tools, **order["options"]))}
    except BadRequest as error:
        return {"error": type(error).__name__, "why": str(error)}


if __name__ == "__main__":
    answer_trials(answer)
