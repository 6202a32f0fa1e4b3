"""Process that compiles constraints on trial.

Started as a module by `constraint_trials`, with a vocabulary of bytes. Separate, because llguidance
expands some small schemas without end, and ends its process on others (a stack overflow in Rust).
"""

from __future__ import annotations

import threading

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.system.frames import FrameHead
from paddock.engine.trial_process import answer_trials
from paddock.engine.wire import to_plain

from .constraint import as_lark, compile_error
from .json_schema import check_schema, parse_schema

STACK_BYTES = 2 * 1024 * 1024
"""Of the compiling thread. A worker's has 16 MiB: what passes here cannot end the worker."""


def main() -> None:
    compile_error(Constraint("json"))  # loads the libraries, before memory is limited
    threading.stack_size(STACK_BYTES)

    def try_constraint(request: FrameHead, result: FrameHead) -> None:
        try:
            constraint = Constraint(request["kind"], request["source"])
            if "places" in request:
                result["problems"] = to_plain(check_schema(parse_schema(constraint)))
                if result["problems"] or not request["compiles"]:
                    return
            translated = as_lark(constraint)
            result["why"] = compile_error(translated)
            result["lark"] = translated.source if translated is not constraint else ""
        except BadRequest as error:
            result["why"] = str(error)
        except BaseException:  # a panic of Rust is no Exception; all of them mean the same
            result["why"] = "the schema or grammar is too large or too complex"

    def answer(request: FrameHead) -> FrameHead:
        result: FrameHead = {"why": "", "lark": "", "problems": []}
        thread = threading.Thread(target=try_constraint, args=(request, result))
        thread.start()
        thread.join()
        return result

    answer_trials(answer)


if __name__ == "__main__":
    main()
