"""How many seeded mutants of some packages the tests kill: a development tool.

    uv run python -m tests.mutants runner/core steps/text --tests tests/runner tests/steps

It changes files of this clone and puts them back, so run it in a clone of its own. One run of the
tests with marks finds which tests execute each mutated statement, in any process; each mutant is
then tried against those, the quickest first, for a minute. The sample depends on the seed and on
the text of the functions alone: in two commits, functions that are equal have the same mutants.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
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
    """One changed expression or statement; `start` and `end` are offsets in the file's bytes."""

    path: str
    function: str
    line: int
    start: int
    end: int
    new: str
    key: str

    def __str__(self) -> str:
        old = (ROOT / self.path).read_bytes()[self.start : self.end].decode()
        short_old, short_new = (" ".join(text.split())[:60] for text in (old, self.new))
        return f"{self.path}:{self.line} {self.function}: {short_old} → {short_new}"

    def changed(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def _marked(source: bytes, marks: dict[Path, int]) -> bytes:
    """Return a file with a mark before each statement that has one of these lines."""
    tree = ast.parse(source)
    blocks = [block for node in ast.walk(tree) for name in ("body", "orelse", "finalbody")
              if isinstance(block := getattr(node, name, None), list)]  # fmt: skip
    found = []
    for mark, line in marks.items():
        here = [(block, one) for block in blocks for one in block
                if one.lineno <= line <= one.end_lineno]  # fmt: skip
        found.append((mark, *here[-1]))  # the innermost: the walk is breadth first
    for mark, block, one in found:
        call = ast.parse(_MARK.format(path=str(mark), mark=mark.name)).body
        block[(at := block.index(one)) : at] = call
    return ast.unparse(tree).encode()


def _replacement(node: ast.AST) -> str | None:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _SWAPS:
            return f"(({ast.unparse(left)}) {_SWAPS[type(op)]} ({ast.unparse(right)}))"
        case ast.BoolOp(op=op, values=values):
            return "(" + f" {_SWAPS[type(op)]} ".join(f"({ast.unparse(v)})" for v in values) + ")"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SWAPS:
            return f"(({ast.unparse(left)}) {_SWAPS[type(op)]} ({ast.unparse(right)}))"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            return str(not value)
        case ast.Constant(value=int() as value):
            return f"({value + 1})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"({ast.unparse(orelse)} if {ast.unparse(test)} else {ast.unparse(body)})"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            return "return None"
        case ast.Expr(value=ast.Call() as call) if "log" not in ast.unparse(call.func):
            return "None"
    return None


def mutants_of(path: Path) -> Iterator[Mutant]:
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    where = path.relative_to(ROOT).as_posix()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.unparse(function)
        nodes = (node for statement in function.body for node in ast.walk(statement))
        for order, node in enumerate(nodes):
            if isinstance(node, ast.expr | ast.stmt) and (new := _replacement(node)) is not None:
                start = starts[node.lineno - 1] + node.col_offset
                end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
                key = hashlib.sha256(f"{where}\0{text}\0{order}".encode()).hexdigest()
                yield Mutant(where, function.name, node.lineno, start, end, new, key)


def sample(packages: list[str], count: int, seed: int) -> list[Mutant]:
    """Return the `count` mutants that the seed puts first, at most one a function."""
    folders = [ROOT / package for package in packages]
    files = [path for each in folders for path in sorted(each.rglob("*.py")) or [each]]
    every = [mutant for path in files for mutant in mutants_of(path)]
    every.sort(key=lambda mutant: hashlib.sha256(f"{seed}{mutant.key}".encode()).digest())
    chosen = {(mutant.path, mutant.function): mutant for mutant in reversed(every)}
    return sorted(chosen.values(), key=every.index)[:count]


@contextmanager
def _in_place(texts: dict[Path, bytes]) -> Iterator[None]:
    before = {path: path.read_bytes() for path in texts}
    try:
        for path, text in texts.items():
            path.write_bytes(text)
        yield
    finally:
        for path, text in before.items():
            path.write_bytes(text)


def _pytest(arguments: list[str], limit_s: float, **environ: str) -> int | None:
    """Return pytest's status, or None when it took longer than `limit_s`."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", __spec__.name]
    with subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env={**os.environ, **environ}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keep the tests that a mutant is tried against, in their order. Called by pytest."""
    if path := os.environ.get(_SELECTED):
        order = {name: at for at, name in enumerate(Path(path).read_text().splitlines())}
        items[:] = [item for item in items if item.nodeid in order]
        items.sort(key=lambda item: order[item.nodeid])


def pytest_runtest_logreport(report: Any) -> None:
    """Note how long each test takes. Called by pytest."""
    if (path := os.environ.get(_DURATIONS)) and report.when == "call":
        with Path(path).open("a") as file:
            file.write(f"{report.duration:.3f} {report.nodeid}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packages", nargs="+", help="folders or modules of the product")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="where the tests stand")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant")
    options = parser.parse_args()
    chosen = sample(options.packages, options.count, options.seed)
    n_killed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marks: dict[Path, dict[Path, int]] = {}
        for number, mutant in enumerate(chosen):
            marks.setdefault(ROOT / mutant.path, {})[folder / str(number)] = mutant.line
        with _in_place({path: _marked(path.read_bytes(), each) for path, each in marks.items()}):
            arguments = ["-n", "2", "--dist", "loadfile", *options.tests]
            _pytest(arguments, 4 * 3600, **{_DURATIONS: str(folder / "took")})
        lines = (line.split(" ", 1) for line in (folder / "took").read_text().splitlines())
        took_s = {test: float(seconds) for seconds, test in lines}
        for number, mutant in enumerate(chosen):
            entered = (folder / str(number)).read_text() if (folder / str(number)).exists() else ""
            names = {line.rsplit(" ", 1)[0] for line in entered.splitlines()} & took_s.keys()
            tests: list[str] = []
            for test in sorted(names, key=lambda test: took_s[test]):
                if not tests or sum(took_s[one] for one in [*tests, test]) <= options.seconds:
                    tests.append(test)
            fate, path, said = "no test", ROOT / mutant.path, str(mutant)
            if tests:
                (folder / "selected").write_text("\n".join(tests))
                arguments = ["-x", "-p", "no:xdist", *sorted({one.split("::")[0] for one in tests})]
                with _in_place({path: mutant.changed(path.read_bytes())}):
                    limit_s = 3 * options.seconds + 60
                    status = _pytest(arguments, limit_s, **{_SELECTED: str(folder / "selected")})
                fate = "survived" if status == 0 else "killed"
            n_killed += fate == "killed"
            print(f"{fate:9} {len(tests):4} of {len(names):4} tests  {said}", flush=True)
    print(f"{n_killed} of {len(chosen)} killed.")


if __name__ == "__main__":
    main()
