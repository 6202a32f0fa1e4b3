"""The same templates by Go's own text/template: what it prints, we print; what it refuses, we do.

Go 1.19 is enough. What newer ones can (loops over numbers) is passed over, and so is what we do on
purpose in another way: numbers compare whatever their kind, and `json` keeps order and signs.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from paddock.engine.chat.go_template.interpreter import GoTemplate
from paddock.engine.chat.go_template.syntax import GoTemplateError

HERE = Path(__file__).parent
N_TEMPLATES = 2000

DATA: dict[str, Any] = {
    "Name": "Ada", "Empty": "", "Yes": True, "No": False, "Nothing": None, "U": "né",
    "List": ["a", "b", "c"], "None": [], "Map": {"one": "1", "two": "2"},
    "Deep": {"A": {"B": "found"}}, "Users": [{"Name": "x", "Tags": ["p"]}, {"Name": "y"}],
}  # fmt: skip
SCALARS = (".Name", ".Empty", ".Yes", ".U", '"s"', "3", "-1", "$.Map.two", "`r`", "'c'")
OPERANDS = (
    *SCALARS, ".No", ".Nothing", ".List", ".None", ".Map", ".Deep.A", ".Deep.A.B", ".Users",
    ".Missing", ".", "$", "$.Name", "$x", "$x.Name", ".Name.Foo", "true", "false", "nil", "0",
)  # fmt: skip
FUNCTIONS = ("len", "not", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "index", "slice",
             "print", "println")  # fmt: skip
STAGES = ("len", "not", "print", 'printf "%v"', 'eq "a"', "index .List", "and .Name", "or .Empty")
FORMS = ('"%v"', '"%s|%v"', '"%q"', '"%d"', '"%5s|"', '"%-6v|"', '"%t"', '"%x"', '"%%"', '"%05d"',
         '"%T"', '"%c"', '"%+d"', '"%v %"', '"%.1s"')  # fmt: skip


class Maker:
    """Makes templates that are mostly right."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def template(self) -> str:
        return '{{ $x := 0 }}{{ define "t" }}<{{ . }}>{{ end }}' + self._block(0)

    def _is(self, chance: float) -> bool:
        return self._random.random() < chance

    def _operand(self, depth: int) -> str:
        if depth > 2 or self._is(0.8):
            return self._random.choice(OPERANDS)
        return f"({self._pipe(depth + 1)}){'.A' if self._is(0.3) else ''}"

    def _command(self, depth: int) -> str:
        if self._is(0.4):
            return self._operand(depth)
        if self._is(0.15):
            values = [self._random.choice(SCALARS) for _ in range(self._random.randint(0, 2))]
            return " ".join(["printf", self._random.choice(FORMS), *values])
        name = self._random.choice(FUNCTIONS)
        n = 1 if name in ("len", "not") else self._random.randint(1, 3)
        return " ".join([name, *(self._operand(depth) for _ in range(n))])

    def _pipe(self, depth: int = 0) -> str:
        stages = [self._random.choice(STAGES) for _ in range(self._random.choice((0, 0, 0, 1, 2)))]
        return " | ".join([self._command(depth), *stages])

    def _action(self, text: str) -> str:
        opens = self._random.choice(("{{ ", "{{- ", "{{"))
        return f"{opens}{text}{self._random.choice((' }}', ' -}}', '}}'))}"

    def _block(self, depth: int) -> str:
        return "".join(self._node(depth) for _ in range(self._random.randint(0, 3)))

    def _node(self, depth: int) -> str:
        if self._is(0.3):
            return self._random.choice(("a", " b\n", "\n", "\t c ", "}", "{ ", "{{/* c */}}"))
        if depth > 3 or self._is(0.4):
            kept = self._random.choice(("", "", "", "$x := ", "$x = "))
            return self._action(kept + self._pipe())
        if self._is(0.1):
            return self._action(f'template "t" {self._pipe()}')
        kind = self._random.choice(("if", "with", "range", "range"))
        kept = self._random.choice(("", "$x := ", "$i, $x := ", "$x = ") if kind == "range" else
                                   ("", "$x := "))  # fmt: skip
        begins = self._action(f"{kind} {kept}{self._pipe()}")
        if kind == "range" and self._is(0.5):
            begins = self._action(f"range {kept}{self._random.choice(('.List', '$.Users'))}")
        inner = self._block(depth + 1)
        if kind == "range" and self._is(0.3):
            inner += self._action("break" if self._is(0.5) else "continue")
        if kind == "if" and self._is(0.3):
            inner += self._action(f"else if {self._pipe()}") + self._block(depth + 1)
        if self._is(0.4):
            inner += self._action("else") + self._block(depth + 1)
        return f"{begins}{inner}{self._action('end')}"


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("GO IS NOT INSTALLED: templates are not compared with Go's own")
    program = tmp_path_factory.mktemp("go") / "carry-out"
    env = {**os.environ, "GO111MODULE": "off", "GOTELEMETRY": "off"}
    build = ["go", "build", "-o", str(program), str(HERE / "go" / "main.go")]
    subprocess.run(build, check=True, env=env)
    return program


def printed(source: str) -> str | None:
    """Return what we print; None: we refuse."""
    try:
        return GoTemplate(source, {}).execute(DATA)
    except GoTemplateError:
        return None


def test_what_go_prints_is_printed_and_what_it_refuses_is_refused(go: Path) -> None:
    maker = Maker(seed=7)
    sources = [maker.template() for _ in range(N_TEMPLATES)]
    orders = "\n".join(json.dumps({"Source": source, "Data": DATA}) for source in sources)
    done = subprocess.run([str(go)], input=orders.encode(), capture_output=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == N_TEMPLATES
    n_printed = 0
    for source, answer in zip(sources, answers, strict=True):
        if "range can't iterate over" in answer["Error"]:
            continue
        expected = None if answer["Error"] else answer["Text"]
        n_printed += expected is not None
        assert (source, printed(source)) == (source, expected), answer["Error"]
    assert n_printed > N_TEMPLATES // 3
