"""How many seeded mutants of some packages the tests kill: a development tool.

    uv run python -m tests.mutants runner/core steps/text --tests tests/runner tests/steps

It changes files of this clone and puts them back, so run it in a clone of its own. One run of the
tests with marks finds which tests execute each mutated statement; each mutant is then tried
against those, the quickest first, for a minute. The sample depends on the seed and on the text
of the functions alone: in two commits, functions that are equal have the same mutants.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_SWAPS: dict[type[ast.AST], str] = {
    **{ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not", ast.IsNot: "is"},
    **{ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.In: "not in", ast.NotIn: "in"},
    **{ast.And: "or", ast.Or: "and"},
    **{ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Div: "*"},
}
_MARK = """(lambda seen, test:
    test in seen or seen.add(test) or open({path!r}, 'a').write(test + '\\n')
)(
    vars(__import__('builtins')).setdefault('_mark_{mark}', set()),
    __import__('os').environ.get('PYTEST_CURRENT_TEST', ''),
)"""
_SELECTED, _DURATIONS = "PADDOCK_MUTANT_TESTS", "PADDOCK_MUTANT_DURATIONS"


@dataclass(frozen=True)
class Mutant:
    """One changed expression: `start` and `end` are offsets in the bytes of the file."""

    path: str
    name: str
    line: int
    start: int
    end: int
    old: str
    new: str
    key: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name}: {_short(self.old)} → {_short(self.new)}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def _changed(node: ast.AST, text: str) -> str | None:
    """What stands in place of an expression or statement whose source is `text`, or None."""

    def part(of: ast.expr) -> str:
        return f"({ast.unparse(of)})"

    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _SWAPS:
            return f"({part(left)} {_SWAPS[type(op)]} {part(right)})"
        case ast.BoolOp(op=op, values=values):
            return "(" + f" {_SWAPS[type(op)]} ".join(map(part, values)) + ")"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SWAPS:
            return f"({part(left)} {_SWAPS[type(op)]} {part(right)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return part(operand)
        case ast.Constant(value=bool() as value):
            return str(not value)
        case ast.Constant(value=int() as value):
            return f"({value + 1})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"({part(orelse)} if {part(test)} else {part(body)})"
        case ast.Return(value=ast.expr() as value) if not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            return "return None"
        case ast.Expr(value=ast.Call(func=ast.Name() | ast.Attribute())) if "log" not in text:
            return "None"
    return None


def mutants_of(path: Path) -> Iterator[Mutant]:
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    where = path.relative_to(ROOT).as_posix()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name in (
            "__repr__",
            "__str__",
        ):
            continue
        text = ast.unparse(function)
        for order, node in enumerate(
            node for statement in function.body for node in ast.walk(statement)
        ):
            if (
                not isinstance(node, ast.expr | ast.stmt)
                or node.end_lineno is None
                or node.end_col_offset is None
            ):
                continue
            start, end = (
                starts[node.lineno - 1] + node.col_offset,
                starts[node.end_lineno - 1] + node.end_col_offset,
            )
            old = source[start:end].decode()
            if (new := _changed(node, old)) is not None:
                key = hashlib.sha256(f"{where}\0{text}\0{order}".encode()).hexdigest()
                yield Mutant(where, function.name, node.lineno, start, end, old, new, key)


def sample(packages: list[str], count: int, seed: int) -> list[Mutant]:
    """The `count` mutants that the seed puts first, at most one a function."""
    every = [
        mutant
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
        for mutant in mutants_of(path)
    ]
    every.sort(key=lambda mutant: hashlib.sha256(f"{seed}{mutant.key}".encode()).digest())
    chosen: dict[tuple[str, str], Mutant] = {}
    for mutant in every:
        chosen.setdefault((mutant.path, mutant.name), mutant)
    return list(chosen.values())[:count]


@contextmanager
def _in_place(texts: dict[str, bytes]) -> Iterator[None]:
    """Write files, and put them back."""
    before = {path: (ROOT / path).read_bytes() for path in texts}
    try:
        for path, text in texts.items():
            (ROOT / path).write_bytes(text)
        yield
    finally:
        for path, text in before.items():
            (ROOT / path).write_bytes(text)


def _marked(path: str, marks: dict[int, Mutant], folder: Path) -> bytes:
    """The file with a mark before the statement of each mutant."""
    source = (ROOT / path).read_bytes()
    tree = ast.parse(source)

    def covers(node: ast.stmt, mutant: Mutant) -> bool:
        return node.lineno <= mutant.line <= (node.end_lineno or node.lineno)

    for mark, mutant in marks.items():
        body: list[ast.stmt] = tree.body
        innermost: tuple[list[ast.stmt], int] | None = None
        while True:
            at = next((index for index, node in enumerate(body) if covers(node, mutant)), None)
            if at is None:
                break
            innermost = (body, at)
            node = body[at]
            inner = [
                getattr(node, name)
                for name in ("body", "orelse", "finalbody")
                if getattr(node, name, None)
            ]
            inner += [handler.body for handler in getattr(node, "handlers", [])] + [
                case.body for case in getattr(node, "cases", [])
            ]
            found = next((each for each in inner if any(covers(one, mutant) for one in each)), None)
            if found is None:
                break
            body = found
        assert innermost is not None, mutant
        block, at = innermost
        block.insert(at, ast.parse(_MARK.format(path=str(folder / str(mark)), mark=mark)).body[0])
        block[at].lineno = block[at].end_lineno = 0
    return ast.unparse(tree).encode()


def _pytest(arguments: list[str], limit_s: float, **environment: str) -> int | None:
    """pytest's status, or None when it took longer than `limit_s`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.mutants",
        "--no-header",
        *arguments,
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keep the tests that a mutant is tried against, in their order. Called by pytest."""
    if path := os.environ.get(_SELECTED):
        order = {name: at for at, name in enumerate(Path(path).read_text().splitlines())}
        items[:] = sorted(
            (item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid]
        )


def pytest_runtest_logreport(report: Any) -> None:
    """Note how long each test takes. Called by pytest."""
    if (path := os.environ.get(_DURATIONS)) and report.when == "call":
        with Path(path).open("a") as file:
            file.write(f"{report.duration:.3f} {report.nodeid}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="+", help="folders of the product, e.g. runner/core")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="where the tests stand")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant")
    parser.add_argument("--processes", default="2", help="of the run that finds the tests")
    parser.add_argument("--save", type=Path, help="write each mutant and its fate as JSON")
    options = parser.parse_args()
    chosen = sample(options.packages, options.count, options.seed)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durations = folder / "durations"
        by_path: dict[str, dict[int, Mutant]] = {}
        for mark, mutant in enumerate(chosen):
            by_path.setdefault(mutant.path, {})[mark] = mutant
        with _in_place({path: _marked(path, marks, folder) for path, marks in by_path.items()}):
            _pytest(
                ["-n", options.processes, "--dist", "loadfile", *options.tests],
                4 * 3600,
                **{_DURATIONS: str(durations)},
            )
        seconds: dict[str, float] = {}
        for line in durations.read_text().splitlines():
            duration, test_name = line.split(" ", 1)
            seconds[test_name] = float(duration)
        for mark, mutant in enumerate(chosen):
            marks = folder / str(mark)
            names = (
                {line.rsplit(" ", 1)[0] for line in marks.read_text().splitlines()}
                if marks.exists()
                else set()
            )
            planned = 0.0
            tests: list[str] = []
            for test in sorted(names & seconds.keys(), key=lambda test: seconds[test]):
                planned += seconds[test]
                if tests and planned > options.seconds:
                    break
                tests.append(test)
            fate = "no test"
            if tests:
                selected = folder / "selected"
                selected.write_text("\n".join(tests))
                source = (ROOT / mutant.path).read_bytes()
                with _in_place(
                    {
                        mutant.path: source[: mutant.start]
                        + mutant.new.encode()
                        + source[mutant.end :]
                    }
                ):
                    files = sorted({test.split("::")[0] for test in tests})
                    status = _pytest(
                        ["-x", "-p", "no:xdist", *files],
                        3 * options.seconds + 60,
                        **{_SELECTED: str(selected)},
                    )
                fate = "survived" if status == 0 else "killed"
            results.append(
                {
                    "mutant": str(mutant),
                    "key": mutant.key,
                    "tests": len(tests),
                    "of": len(names),
                    "fate": fate,
                }
            )
            print(f"{fate:9} {len(tests):4} of {len(names):4} tests  {mutant}", flush=True)
    killed = sum(result["fate"] == "killed" for result in results)
    print(f"{killed} of {len(results)} killed.")
    if options.save:
        options.save.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
