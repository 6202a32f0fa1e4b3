"""Untrusted text in commands: where it stands decides whether it is data; else it is refused.

1. A program is the author's, as is all that an interpreter has up to its script (`sh -c …`,
   `python x.py`) and all that a program has which joins its words (`ssh`).
2. Behind an inline script all words are its arguments; behind `--` no option begins.
3. Elsewhere a word is the value of an option (`--title=`), an absolute path, or a path that begins
   with the author's text (`out/`): more than a path could be a script to a program unknown here.
4. Variables under the author's names are data, as is standard input that is no script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from paddock.engine.system.text import path_text, shorten
from paddock.pipelines.errors import Fault
from paddock.pipelines.expressions import (
    Expression,
    ExpressionError,
    Reference,
    compile_text,
    template_pieces,
)
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.steps.base import StepError
from paddock.steps.param_types import CommandParam, DoorParam
from paddock.steps.paths import printable

from ..bound import BoundPlan, BoundStep
from ..inputs import LATER, KnownInputs
from ..plan_walks import all_plans, steps_of
from .reached import ReachedNotification, ReachedServer, StartedProgram, reached_by

_REMEDY = (
    "Write the program and its script yourself. Such text stands behind the script, as in "
    '`[sh, -c, \'wc -c < "$1"\', sh, "{{ doc.path }}"]`, or behind `--`, is an absolute path or '
    "a value (`--name={{ … }}`), or is given in `env` under a name of your own, or on `stdin`."
)
_SHOWN_CHARS = 200
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "ash", "fish")
_PASSING = {**dict.fromkeys(_SHELLS, "oO"), "python": "WX", "pypy": "WX"}
"""Those that take no option behind an inline script."""
_STARTING = {"env": "uCS", "nice": "n", "ionice": "cn", "nohup": "", "sudo": "ugpC", "doas": "u",
             "setsid": "", "stdbuf": "ioe", "time": "fo", "timeout": "ks", "xargs": "nILPsdaE",
             "-exec": "", "-execdir": ""}  # fmt: skip
_JOINING = ("ssh", "make", "gmake", "parallel", "watch", "su", "pwsh")
_INTERPRETERS = {
    **_PASSING, **_STARTING, "perl": "I", "ruby": "IrC", "node": "r", "bun": "r", "php": "dc",
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), "Fv"),
    **dict.fromkeys(("sed", "jq", "lua", "Rscript", "osascript", "tclsh"), ""),
}  # fmt: skip
"""Programs whose first operand is code, a file of code or a program; their options with values."""
_OPTION, _NAME_OF_OPTION = re.compile(r"[-+].|\w+="), re.compile(r"--?[\w.-]+=")
_OWN_BEGINNING = re.compile(rf"{_NAME_OF_OPTION.pattern}|[^-]")
_AMOUNT, _INLINE = re.compile(r"[\d.]+[smhd]?"), re.compile(r"-\w*c")
_WITH_VALUE = ("--rcfile", "--init-file", "--require", "--import")
_ANOTHER_SCRIPT = ("-e", "-f", "--eval", "--expression", "--file", "--from-file")
_NO_PATH = re.compile(r"[^\w./:@,+=%~-]")


class Misplaced(Enum):
    PROGRAM = "it would choose the program"
    CODE = "it could be run as code"
    OPTION = "it could be an option, unlike an absolute path"
    VARIABLE = "it would choose the variables"


class _Word(NamedTuple):
    text: str = ""
    """As far as it is known."""
    made_of: str = ""
    """The untrusted references in it."""
    own: str = ""
    """What stands before these."""
    why: Misplaced | None = None
    """Why it may stand only where all words are arguments."""


class _CodeWords(NamedTuple):
    numbers: Collection[int]
    """Of the words that only the author may write; the program is one."""
    n_before_arguments: int
    """How many words stand before the arguments of an inline script; all where there is none."""
    is_stdin_code: bool


_NOTHING = _Word()
_Found: TypeAlias = Iterator[tuple[Place, _Word, Misplaced]]


def check_commands(bound: BoundPlan) -> Iterator[Fault]:
    """Yield where untrusted text is misplaced in commands, as far as it is known before a run."""
    for plan in all_plans(bound):
        for who, at, found in _commands(plan):
            for place, word, why in found:
                what = f"{who} has untrusted text ({word.made_of}) in its command: {why.value}"
                yield plan.pipeline.document.fault((*at, *place), what, _REMEDY)


def check_accounts(bound: BoundPlan) -> Iterator[Fault]:
    """Yield where untrusted text decides which server is shown a password."""
    for plan in all_plans(bound):
        for step in steps_of(plan.nodes):
            places = step.params.places()
            secret = {
                place[0] for place, read in places.items() if any(p[0] == "secrets" for p in read)
            }
            for place, read in places.items():
                named = {".".join(path) for path in read} & {*step.untrusted}
                # A tool's options show a password only where one stands in them.
                shows = place[0] in step.facts.types.names(DoorParam) and (
                    place[0] in secret or place[0] != "options"
                )
                if named and shows:
                    what = f"step '{step.id}' has untrusted text ({min(named)}) in its `{place[0]}`"
                    at = (*step.params.step.at, "with", place[0])
                    remedy = "Write it in the file, what opens the door as a secret."
                    yield plan.pipeline.document.fault(at, what, remedy)


def _commands(plan: BoundPlan) -> Iterator[tuple[str, Place, _Found]]:
    evaluate, tainted = partial(_known_value, plan), plan.tainted_inputs
    for step in steps_of(plan.nodes):
        if step.untrusted and step.has(CommandParam):
            at = (*step.params.step.at, "with")
            yield f"step '{step.id}'", at, _in_step(step, evaluate)

    def is_untrusted(path: Reference) -> bool:
        return path[0] == "inputs" and not tainted.isdisjoint(path[1:2] or tainted)

    read = partial(_word, is_untrusted, evaluate)
    for reached in reached_by(plan.pipeline) if tainted else ():
        match reached:
            case ReachedServer(use=None, program=StartedProgram(words)):
                who = f"the MCP server '{reached.name}'"
            case ReachedNotification(program=StartedProgram(words)):
                who = "the notification"
            case _:
                continue
        yield who, reached.at, _misplaced([read(word) for word in words])


def refuse_misplaced(step: BoundStep, scope: Mapping[str, Any]) -> None:
    """Refuse a step's command with misplaced untrusted text, now that all of it is known.

    Raises:
        StepError: with the first such place.
    """
    for place, word, why in _in_step(step, lambda made: made.evaluate(scope)):
        text = printable(shorten(word.text, _SHOWN_CHARS))
        what = f"`{path_text(place)}` is '{text}', made of untrusted text ({word.made_of})"
        raise StepError(f"{what}: {why.value}.", remedy=_REMEDY)


def _known_value(plan: BoundPlan, made: Expression) -> Any:
    """Return a value where it is known before a run, and of untrusted text whether it is a path."""
    match made.chain:
        case ("inputs", name) if name in plan.tainted_inputs:
            return "/" if plan.pipeline.inputs[name].type in FOLDER_TYPES else ""
        case (_, "path") | ("steps", _, "path"):
            return "/"
    value = KnownInputs(plan.inputs, plan.later_inputs).evaluated(made)
    return "" if value is LATER else value


def _in_step(step: BoundStep, evaluate: Callable[[Expression], Any]) -> _Found:
    given = step.written
    read = partial(_word, lambda path: ".".join(path) in step.untrusted, evaluate)
    command, env = given.get(step.facts.param(CommandParam), ()), given.get("env")
    if isinstance(command, str):  # an expression, whose value is a list
        whole = read(command)
        value = None if whole.made_of else evaluate(compile_text(command, bare=False))
        words = [_Word(str(w), "", str(w)) for w in value] if isinstance(value, list) else [whole]
    else:
        words = [read(word) for word in command]
    yield from _misplaced(words, read(given.get("stdin") or ""))
    if isinstance(env, str) and (word := read(env)).made_of:
        yield ("env",), word, Misplaced.VARIABLE


def _word(
    is_untrusted: Callable[[Reference], bool], evaluate: Callable[[Expression], Any], written: Any
) -> _Word:
    text = ""
    own = ""
    is_path = True
    names: set[str] = set()
    with suppress(ExpressionError):  # reported with its place
        for piece in template_pieces(str(written)):
            if isinstance(piece, str):
                is_path = is_path and _NO_PATH.search(piece) is None
                text += piece
            else:
                own = own if names else text
                names |= {".".join(path) for path in piece.references if is_untrusted(path)}
                text += str(evaluate(piece))
    own = own if names else text
    is_data = _OWN_BEGINNING.match(own) if own else text.startswith("/")
    why = None if is_data else Misplaced.OPTION
    if not is_path:
        why = None if _NAME_OF_OPTION.fullmatch(own) else Misplaced.CODE
    return _Word(text, ", ".join(sorted(names)), own, why)


def _misplaced(words: Sequence[_Word], stdin: _Word = _NOTHING) -> _Found:
    """Yield untrusted text that may not stand where it does, with its place and why."""
    texts = [word.own for word in words]
    code = _code_words(texts)
    for number, word in enumerate(words[: code.n_before_arguments]):
        why = None if "--" in texts[max(code.numbers) : number] else word.why
        if number in code.numbers:
            why = Misplaced.CODE if number else Misplaced.PROGRAM
        if word.made_of and why is not None:
            yield ("command", number), word, why
    if code.is_stdin_code and stdin.made_of:
        yield ("stdin",), stdin, Misplaced.CODE


def _code_words(texts: Sequence[str]) -> _CodeWords:
    """Return what of a command is code. `texts`: of each word what is the author's.

    The words are read from the left, the first as a program, until 1 or 4:

    1. A program that joins its words (`ssh`): it and all behind it is code.
    2. Another that is unknown, or a word of such a program, which may start an interpreter.
    3. A program that starts one (`env`): code as far as that, which is read next.
    4. An interpreter: code as far as its script.
       a. Inline, with `-c`, of a shell or Python: only arguments follow.
       b. Of any other, options behind it may hold further scripts (`-e`).
       c. Missing, `-`, or with `-s` in a shell: standard input is the script.

    Standard input is code also to `xargs` and `parallel`, which make words of it.
    """
    code = {0}
    n_before_arguments = len(texts)
    is_stdin_code = False
    is_program = True
    number = 0
    while number < len(texts):
        name = re.sub(r"[\d.]+\Z", "", texts[number].rpartition("/")[2])
        is_stdin_code = is_stdin_code or (is_program and name in ("xargs", "parallel"))
        if is_program and name in _JOINING:  # 1
            code.update(range(number, len(texts)))
            break
        if name not in _INTERPRETERS:  # 2
            number += 1
            is_program = False
            continue
        operand, is_inline = _first_operand(name, texts, number + 1)
        code.update(range(number, operand + 1))
        if name in _STARTING:  # 3
            number = operand
            is_program = True
            continue
        if name not in _PASSING:  # 4b
            options = [text.partition("=")[0] in _ANOTHER_SCRIPT for text in texts]
            code |= {n for n in range(operand, len(texts)) if options[n] or options[n - 1]}
        elif is_inline:  # 4a
            n_before_arguments = operand + 1
        if is_program and not is_stdin_code:  # 4c
            script = texts[operand] if operand < len(texts) else "-"
            is_on_stdin = name in _SHELLS and "-s" in texts[number:operand]
            is_stdin_code = is_on_stdin or script in ("-", "/dev/stdin")
        break
    return _CodeWords(code, n_before_arguments, is_stdin_code)


def _first_operand(name: str, texts: Sequence[str], number: int) -> tuple[int, bool]:
    """Return which word is an interpreter's script or program, and whether it is inline (`-c`).

    `number` is the first word behind the interpreter. Options and their values are passed over, and
    the amount of one like `timeout`.
    """
    is_inline = False
    while number < len(texts) and _OPTION.match(text := texts[number]):
        is_inline = is_inline or _INLINE.fullmatch(text) is not None
        has_value = text in _WITH_VALUE or (name in _STARTING and text[2:] and "=" not in text)
        if text[0] in "-+" and text[1] != "-":
            has_value = text[-1] in _INTERPRETERS[name]
        number += 2 if has_value else 1
    if name in _STARTING and number < len(texts) and _AMOUNT.fullmatch(texts[number]):
        number += 1
    return number, is_inline
