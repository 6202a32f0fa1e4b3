"""Process that counts tokens, and letters that are unknown, with a local model's vocabulary.

Started as a module by `token_counting`. Separate, because a broken file may end llama.cpp by
`abort()`. Requests and counts are frames; the process ends when its pipe closes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.llama.unknown_letters import unknown_share
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.request import Message
from paddock.engine.system.frames import answer_frames, pack_frame, take_pipes


def main(path: str, *parts: str) -> None:
    requests, answers = take_pipes()
    model = Vocabulary(Path(path), parts)
    prompter = PromptBuilder(model)
    answer_frames(requests, answers, lambda order: pack_frame(_counts(model, prompter, order)))


def _counts(model: Vocabulary, prompter: PromptBuilder, order: dict[str, Any]) -> dict[str, Any]:
    try:
        if "letters" in order:
            return {"counts": [unknown_share(model, text) for text in order["letters"]]}
        if "messages" in order:
            messages = [Message(*turn) for turn in order["messages"]]
            return {"counts": [prompter.count_chat(messages)]}
        return {"counts": prompter.count(order["texts"])}
    except Exception as error:  # reported to the caller; the next order may work
        return {"error": f"{error or type(error).__name__}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
