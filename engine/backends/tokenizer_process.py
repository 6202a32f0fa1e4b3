"""Process that counts tokens with a local model's vocabulary.

Started as a module by `token_counting`. Separate, because a broken file may end llama.cpp by
`abort()`. Requests and counts are frames; the process ends when its pipe closes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.request import Message
from paddock.engine.system.frames import answer_frames, pack_frame, take_pipes


def main(path: str, *parts: str) -> None:
    requests, answers = take_pipes()
    prompter = PromptBuilder(
        Model(Path(path), ModelOptions(n_gpu_layers=0, is_vocabulary=True, parts=parts))
    )
    answer_frames(requests, answers, lambda order: pack_frame(_counts(prompter, order)))


def _counts(prompter: PromptBuilder, order: dict[str, Any]) -> dict[str, Any]:
    try:
        if "messages" in order:
            messages = [Message(*turn) for turn in order["messages"]]
            return {"counts": [prompter.count_chat(messages)]}
        return {"counts": prompter.count(order["texts"])}
    except Exception as error:  # reported to the caller; the next order may work
        return {"error": f"{error or type(error).__name__}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
