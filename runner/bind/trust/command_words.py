"""Untrusted text in commands: where it stands decides whether it is data; else it is refused.

1. A program is the author's, as is all that an interpreter has up to its script (`sh -c …`,
   `python x.py`) and all that a program has which joins its words (`ssh`).
2. Behind an inline script all words are its arguments; behind `--` no option begins.
3. Elsewhere a word is an absolute path, or begins with the author's text (`out/`, `--title=`),
   which is no more than a path: programs that are not listed here have scripts, too.
4. Variables and standard input are data, but where a program takes them for code.
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
             "setsid": "", "stdbuf": "ioe", "time": "fo", "timeout": "ks",
             "xargs": "nILPsdaE"}  # fmt: skip
_JOINING = ("ssh", "make", "gmake", "parallel", "watch", "su", "pwsh")
_INTERPRETERS = {
    **_PASSING, **_STARTING, "perl": "I", "ruby": "IrC", "node": "r", "bun": "r", "php": "dc",
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), "Fv"),
    **dict.fromkeys(("sed", "jq", "lua", "Rscript", "osascript", "tclsh"), ""),
}  # fmt: skip
"""Programs whose first operand is code, a file of code or a program; their options with values."""
_OPTION, _VALUE_OF_OPTION = re.compile(r"[-+].|\w+="), re.compile(r"--?[\w.-]+=")
_AMOUNT, _INLINE = re.compile(r"[\d.]+[smhd]?"), re.compile(r"-\w*c")
_NO_PATH = re.compile(r"[^\w./:@,+=%~-]")
_NAMES_CODE = re.compile(
    r"(?i)(?:^|[-._=])(?:eval|exec(?:dir|ute)?|expression|script|program|shell|rsh|pager|editor|"
    r"hookspath|\w*command)(?:$|[-._=])"
)
_CODE_VARIABLE = re.compile(
    r"(?:LD|DYLD|BASH|GIT|SSH|NODE|NPM|npm|LUA|JDK|_?JAVA|XDG)_.*|(?:PYTHON|PERL5)[A-Z]+|"
    r"(?:\w+_)?(?:COMMAND|CMD|OPTS|RSH|PAGER|EDITOR|VISUAL|BROWSER|SHELL)|(?:BASH|SHELL|RUBY)OPTS?|"
    r"(?:CD|F|CLASS|GCONV_)?PATH|RUBYLIB|M(?:AKE)?FLAGS|LESSOPEN|HOME|ENV|IFS|PS[0-4]|ZDOTDIR"
)


class Misplaced(Enum):
    """Why untrusted text may not stand where it does."""

    PROGRAM = "it would choose the program"
    CODE = "it could be run as code"
    OPTION = "it could be an option, unlike an absolute path"
    VARIABLE = "programs take this variable for code"


class _Word(NamedTuple):
    text: str = ""
    """As far as it is known."""
    made_of: str = ""
    """The untrusted references in it."""
    lead: str = ""
    """What stands before these."""
    is_path: bool = True
    """Whether it is no more than a path, but for values."""


_Read: TypeAlias = Callable[[Any], _Word]
_Found: TypeAlias = Iterator[tuple[Place, _Word, Misplaced]]


def check_commands(bound: BoundPlan) -> Iterator[Fault]:
    """Yield where untrusted text is misplaced in commands, as far as it is known before a run."""
    for plan in all_plans(bound):
        evaluate, found = partial(_known_value, plan), list[tuple[str, Place, _Found]]()
        for step in steps_of(plan.nodes):
            if step.untrusted and step.facts.command:
                at = (*step.params.step.at, "with")
                found.append((f"step '{step.id}'", at, _in_step(step, evaluate)))
        for reached in reached_by(plan.pipeline) if plan.tainted_inputs else ():
            match reached:
                case ReachedServer(use=None, program=StartedProgram() as program):
                    who = f"the MCP server '{reached.name}'"
                case ReachedNotification(program=StartedProgram() as program):
                    who = "the notification"
                case _:
                    continue
            read = partial(_word, partial(_is_tainted, plan), evaluate)
            found.append((who, reached.at, _misplaced(program, None, read)))
        for who, at, places in found:
            for place, word, why in places:
                what = f"{who} has untrusted text ({word.made_of}) in its command: {why.value}"
                yield plan.pipeline.document.fault((*at, *place), what, _REMEDY)


def refuse_misplaced(step: BoundStep, scope: Mapping[str, Any]) -> None:
    """Refuse a step's command with misplaced untrusted text, now that all of it is known.

    Raises:
        StepError: with the first such place.
    """
    for place, word, why in _in_step(step, lambda made: made.evaluate(scope)):
        text = printable(shorten(word.text, _SHOWN_CHARS))
        what = f"`{path_text(place)}` is '{text}', made of untrusted text ({word.made_of})"
        raise StepError(f"{what}: {why.value}.", remedy=_REMEDY)


def _is_tainted(plan: BoundPlan, path: Reference) -> bool:
    return path[0] == "inputs" and not plan.tainted_inputs.isdisjoint(
        path[1:2] or plan.tainted_inputs
    )


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
    words = given.get(step.facts.command, ())
    if isinstance(words, str):  # an expression, whose value is a list
        whole = read(words)
        value = None if whole.made_of else evaluate(compile_text(words, bare=False))
        words = [_Word(str(word)) for word in value] if isinstance(value, list) else [whole]
    program = StartedProgram(words, env=given.get("env"))
    return _misplaced(program, given.get("stdin"), read)


def _word(
    is_untrusted: Callable[[Reference], bool], evaluate: Callable[[Expression], Any], written: Any
) -> _Word:
    if isinstance(written, _Word):
        return written
    text, lead, is_path, names = "", "", True, set[str]()
    with suppress(ExpressionError):  # reported with its place
        for piece in template_pieces(str(written)):
            if isinstance(piece, str):
                is_path = is_path and _NO_PATH.search(piece) is None
                text += piece
            else:
                lead = lead if names else text
                names |= {".".join(path) for path in piece.references if is_untrusted(path)}
                text += str(evaluate(piece))
    return _Word(text, ", ".join(sorted(names)), lead, is_path)


def _misplaced(program: StartedProgram, stdin: Any, read: _Read) -> _Found:
    """Yield untrusted text that may not stand where it does, with its place and why."""
    words = [*map(read, program.words)]
    texts = [None if word.made_of else word.text for word in words]
    code, n_before_arguments, is_stdin_code = _code_words(texts)
    for number, word in enumerate(words[:n_before_arguments]):
        begin = max(own for own in code if own <= number)
        why: Misplaced | None = Misplaced.CODE if number else Misplaced.PROGRAM
        if begin < number:
            is_behind_dashes = "--" in texts[begin + 1 : number]
            why = None if is_behind_dashes else _misplaced_argument(word, texts[number - 1] or "")
        if word.made_of and why is not None:
            yield ("command", number), word, why
    env = program.env if isinstance(program.env, Mapping) else {"ENV": program.env or ""}
    for name, value in env.items():
        if _CODE_VARIABLE.fullmatch(name) and (word := read(value)).made_of:
            yield ("env", name), word, Misplaced.VARIABLE
    if is_stdin_code and stdin is not None and (word := read(stdin)).made_of:
        yield ("stdin",), word, Misplaced.CODE


def _misplaced_argument(word: _Word, before: str) -> Misplaced | None:
    option = before if before.startswith("-") else ""
    if _NAMES_CODE.search(word.lead.rpartition("=")[0]) or _NAMES_CODE.search(option):
        return Misplaced.CODE
    if word.lead.startswith("-"):
        return None if _VALUE_OF_OPTION.match(word.lead) else Misplaced.OPTION
    if not word.is_path:
        return Misplaced.CODE
    return None if word.lead or word.text.startswith("/") else Misplaced.OPTION


def _code_words(texts: Sequence[str | None]) -> tuple[Collection[int], int, bool]:
    """Return which words are the author's, and from where on all are arguments of a script.

    And whether standard input is the script. A text of None is untrusted.
    """
    code, n_before_arguments, is_stdin_code = {0}, len(texts), False
    number, is_program = 0, True
    while number < len(texts):
        name = re.sub(r"[\d.]+\Z", "", (texts[number] or "").rpartition("/")[2])
        is_stdin_code = is_stdin_code or (is_program and name in ("xargs", "parallel"))
        if is_program and name in _JOINING:
            code.update(range(number, len(texts)))
            break
        if name not in _INTERPRETERS:  # it may start one
            number, is_program = number + 1, False
            continue
        begin, number, is_inline = number, number + 1, False
        while number < len(texts) and _OPTION.match(text := texts[number] or ""):
            is_inline = is_inline or _INLINE.fullmatch(text) is not None
            is_short = text[0] in "-+" and text[1] != "-"
            has_value = is_short and text[-1] in _INTERPRETERS[name]
            number += 2 if has_value or text in ("--rcfile", "--init-file") else 1
        if name in _STARTING:
            number += number < len(texts) and _AMOUNT.fullmatch(texts[number] or "") is not None
            code.update(range(begin, number + 1))
            is_program = True
            continue
        code.update(range(begin, number + 1))
        if name in _PASSING and is_inline:
            n_before_arguments = number + 1
        elif name not in _PASSING:  # it may have several scripts
            code |= {n for n in range(number, len(texts)) if texts[n - 1] in ("-e", "--eval")}
        is_own_script = number < len(texts) and texts[number] not in ("-", "/dev/stdin")
        is_own_script = is_own_script and not (name in _SHELLS and "-s" in texts[begin:number])
        is_stdin_code = is_stdin_code or (is_program and not is_own_script)
        break
    return code, n_before_arguments, is_stdin_code
