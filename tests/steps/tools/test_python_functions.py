"""Python functions of a user's: described by their hints, called in processes of their own."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.base import StepError, ToolResult
from paddock.steps.tools import python_files
from paddock.steps.tools.python_functions import FunctionPool, PythonFunction
from tests.waiting import eventually, until

TOOLS = '''
import asyncio, datetime, os, subprocess, sys, time
from dataclasses import dataclass
from typing import Annotated, Literal

import beside

@dataclass
class Place:
    name: str
    since: datetime.date

def area(width: float, height: float = 2, *, unit: Literal["m", "km"] = "m") -> dict:
    """Tell the area
    of a field.

    Args:
        width: How wide
            it is.
        height (float): How high.
    """
    print("not an answer")
    return {"area": width * height, "unit": unit, "pid": os.getpid(), "n": beside.N}

area.has_effects = False

def keys() -> list: return [name for name in os.environ if "KEY" in name or "LEDGER" in name]

async def older(place: Place, schema: Annotated[int, "How many years."] = 1) -> Place:
    return Place(place.name, place.since.replace(year=place.since.year - schema))

def wrong(): raise ValueError("no field")
def ends(): print("the roof fell in", file=sys.stderr); os._exit(3)
def sleeps(pid: str):
    child = subprocess.Popen(["sleep", "600"])
    open(pid, "w").write(str(child.pid))
    time.sleep(600)
def asks(): return input("Which field? ")
def reads(): return subprocess.run(["cat"], capture_output=True, text=True).stdout
def leaves(): sys.exit("no key")
def thing(): return object()
def nan(): return float("nan")
def large(): return "x" * 17_000_000
def killed(): os.kill(os.getpid(), 9)
def garbage(raw: str, fds=(3, 4, 5, 6)):
    for fd in fds:  # one is where answers go
        try: os.write(fd, bytes.fromhex(raw))
        except OSError: pass
    time.sleep(600)
def any_number(*numbers): return sum(numbers)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "beside.py").write_text("N = 7")
    (tmp_path / "broken.py").write_text("import no_such_module\ndef f(): ...")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('leaving')\ndef f(): ...")
    for name in ("ssl", "string", "selectors"):  # names of modules that ours import
        (tmp_path / f"{name}.py").write_text("x = 1")
    return tmp_path


async def call(
    hands: FunctionPool, function: PythonFunction, args: Mapping[str, Any]
) -> ToolResult:
    tool = await hands.tool(function.name, function)
    async with tool.turn():
        return await tool.do(args)


def of(folder: Path, name: str, file: str = "tools.py") -> PythonFunction:
    return PythonFunction(file, name, folder / file)


def work(do: Callable[[FunctionPool], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        hands = FunctionPool()
        try:
            await do(hands)
        finally:
            await hands.close()

    asyncio.run(main())


async def failure(waiting: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(StepError) as caught:
        await waiting
    return str(caught.value)


def test_a_function_is_a_tool_by_its_hints_and_its_docstring(folder: Path) -> None:
    async def do(hands: FunctionPool) -> None:
        tool = await hands.tool("tools.py:area", of(folder, "area"))
        assert tool.description == "Tell the area of a field."
        assert tool.schema == {
            "type": "object",
            "properties": {
                "width": {"type": "number", "description": "How wide it is."},
                "height": {"type": "number", "default": 2, "description": "How high."},
                "unit": {"type": "string", "enum": ["m", "km"], "default": "m"},
            },
            "required": ["width"],
            "additionalProperties": False,
        }
        assert (tool.has_effects, tool.keeps) == (False, True)
        result = await tool.do({"width": 3})
        assert {**result.value, "pid": 0} == {"area": 6.0, "unit": "m", "pid": 0, "n": 7}
        assert (await tool.do({"width": "3"})).value["area"] == 6.0
        again = await tool.do({"width": 1})
        assert again.value["pid"] == result.value["pid"], "one process serves many calls"
        assert (await tool.do({"width": "wide"})).text == (
            "`width` should be a valid number, unable to parse string as a number."
        )
        assert (await tool.do({"depth": 1})).text == (
            "`width` is missing; it takes `width`, `height`, `unit`."
        )
        other = await hands.tool("tools.py:older", of(folder, "older"))
        assert (other.has_effects, other.keeps) == (True, False), "nobody said it has none"
        assert other.schema["properties"]["schema"]["description"] == "How many years."
        place = {"name": "pier", "since": "2020-05-01"}
        assert (await other.do({"place": place})).value == {**place, "since": "2019-05-01"}

    work(do)


def test_a_function_gets_no_keys_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_API_KEY", "of ours")
    monkeypatch.setenv("PADDOCK_LEDGER", "postgresql://me:hush@db.example/x")

    async def do(hands: FunctionPool) -> None:
        tool = await hands.tool("tools.py:keys", of(folder, "keys"))
        assert (await tool.do({})).value == []

    work(do)


def test_what_goes_wrong_in_a_function_is_told_with_its_line(folder: Path) -> None:
    async def do(hands: FunctionPool) -> None:
        line = next(n for n, one in enumerate(TOOLS.splitlines(), 1) if "def wrong" in one)
        result = await call(hands, of(folder, "wrong"), {})
        assert result.text == f"ValueError: no field (tools.py, line {line})"
        assert result.is_error
        assert await failure(call(hands, of(folder, "ends"), {})) == (
            "'tools.py:ends' ended its process: the roof fell in"
        )
        assert (await call(hands, of(folder, "wrong"), {})).is_error, "the next one gets a new one"
        assert "did not return plain data (object)" in await failure(
            call(hands, of(folder, "thing"), {})
        )
        assert "did not return plain data (float)" in await failure(
            call(hands, of(folder, "nan"), {})
        )
        large = await call(hands, of(folder, "large"), {})
        assert large.text == "it gave 17,000,028 bytes; at most 16,777,216 are allowed."
        assert await failure(hands.described(of(folder, "any_number"))) == (
            "'any_number' takes `*numbers`; arguments of a tool need names."
        )
        assert await failure(hands.described(of(folder, "f", "broken.py"))) == (
            "'broken.py' cannot be imported: ModuleNotFoundError: No module named 'no_such_module'."
        )
        assert await failure(hands.described(of(folder, "f", "leaves.py"))) == (
            "'leaves.py' cannot be imported: SystemExit: leaving."
        )

    work(do)


@pytest.mark.parametrize("raw", ["ff" * 64, "02" + "00" * 15 + "5b5d"])
def test_a_function_that_is_killed_or_writes_garbage_fails_alone(folder: Path, raw: str) -> None:
    async def do(hands: FunctionPool) -> None:
        function = of(folder, "garbage")
        assert await failure(call(hands, of(folder, "killed"), {})) == (
            "'tools.py:killed' was killed, as where memory runs out."
        )
        assert await failure(call(hands, function, {"raw": raw, "fds": [3, 4, 5, 6]})) == (
            "'tools.py:garbage' ended its process."
        )
        assert (await call(hands, of(folder, "wrong"), {})).is_error, "the next one gets a new one"

    work(do)


def test_a_function_and_what_it_starts_have_nothing_to_read_and_cannot_leave(folder: Path) -> None:
    lines = TOOLS.splitlines()

    async def do(hands: FunctionPool) -> None:
        line = lines.index('def asks(): return input("Which field? ")') + 1
        asked = await call(hands, of(folder, "asks"), {})
        assert asked.text == f"EOFError: EOF when reading a line (tools.py, line {line})"
        assert (await call(hands, of(folder, "reads"), {})).value == ""
        left = await call(hands, of(folder, "leaves"), {})
        line = lines.index('def leaves(): sys.exit("no key")') + 1
        assert left.text == f"SystemExit: no key (tools.py, line {line})"

    work(do)


def test_a_caller_that_stops_waiting_ends_the_process_and_what_it_started(folder: Path) -> None:
    async def do(hands: FunctionPool) -> None:
        pid = folder / "pid"
        calling = asyncio.create_task(call(hands, of(folder, "sleeps"), {"pid": str(pid)}))
        await eventually(lambda: pid.exists() and pid.read_text())
        calling.cancel()
        await asyncio.wait({calling})

    work(do)
    state = Path(f"/proc/{(folder / 'pid').read_text()}/stat")
    until(lambda: not runs(state))  # a kill takes a moment


def runs(state: Path) -> bool:
    """Return whether a process is there and not only waited for; `state` is its file in /proc."""
    with suppress(OSError):
        return state.read_text().split()[2] != "Z"
    return False


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def clean(): ...", None),
        ("from beside import clean", None),
        ("clean = functools.partial(f)", None),
        ("def cleen(): ...", "there is no function 'clean' in 't.py'. Known: 'cleen'. "
                             "Did you mean 'cleen'?"),
        ("def clean(:", "the file 't.py' is not Python, line 1: invalid syntax. "),
        ("\0", "the file 't.py' is not Python: source code string cannot contain null bytes. "),
    ],
)  # fmt: skip
def test_a_file_is_checked_without_running_it(
    tmp_path: Path, text: str, sentence: str | None
) -> None:
    (tmp_path / "t.py").write_text(text)
    why = None
    try:
        python_files.check_function(tmp_path / "t.py", "t.py", "clean")
    except python_files.FunctionNotFound as error:
        why = f"{error.what}. {error.remedy}"
    assert why == sentence
