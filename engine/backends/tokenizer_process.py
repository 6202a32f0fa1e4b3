"""Process that counts tokens with a local model's vocabulary.

Started as a module by `token_counting`. Separate, because a broken file may end llama.cpp by
`abort()`. Requests and counts are lines of JSON; the process ends when its pipe closes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.request import Message


def main(path: str, *parts: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what llama.cpp prints must not stand among the answers
    prompter = PromptBuilder(
        Model(Path(path), ModelOptions(n_gpu_layers=0, is_vocabulary=True, parts=parts))
    )
    for line in sys.stdin:
        answers.write(json.dumps(_counts(prompter, json.loads(line))) + "\n")
        answers.flush()


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
