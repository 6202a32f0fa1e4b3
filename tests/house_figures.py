"""Find what makes the product harder to enter: names, docstrings, imports, parameters.

uv run python -m tests.house_figures banned_openings
"""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipelines", "steps", "engine", "runner")
MIDDLE = ("runner/core/", "runner/dry_run/", "runner/ledger/", "runner/lineage/")
MAX_PARAMETERS = 6
BANNED_OPENINGS = ("Give", "Gives", "Tell", "Tells", "Say", "Says", "Let", "Lets")
BANNED_WORDS = re.compile(
    r"\b(who(so)?ever|whichever|whomever|somebody|nobody|anew|likewise|is told|for it is"
    r"|what it is that)\b",
    re.IGNORECASE,
)
NO_NAMES = frozenset((
    "one", "wanted", "asked", "told", "said", "more", "settle", "settled", "residence", "board",
))  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        return "paddock." + ".".join(self.path.relative_to(ROOT).with_suffix("").parts)

    @property
    def place(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def package(self) -> str:
        return self.name.rpartition(".")[0]

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    def functions(self) -> Iterator[Function]:
        yield from (n for n in self.nodes if isinstance(n, Function))

    def docstrings(self) -> Iterator[tuple[int, str]]:
        """Yield the line and text of each docstring."""
        for node in self.nodes:
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield getattr(node, "lineno", 1), text

    def imports(self, *, only_on_load: bool = False) -> Iterator[str]:
        """Yield the full names of imported modules, and of imported names as `module.name`.

        `only_on_load`: without those of functions, and those that only a type checker sees.
        """
        for node in self.tree.body if only_on_load else self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.package.split(".")
                    parts = parts[: len(parts) - node.level + 1]
                    base = ".".join([*parts, base]).strip(".")
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def calls(self) -> Iterator[str]:
        """Yield the dotted names of what is called."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield _dotted(node.func)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def module_at(path: Path) -> Module:
    """Return the module of a file, which is read and parsed once."""
    return Module(path)


@cache
def all_modules() -> tuple[Module, ...]:
    """Return the product's modules, packages' `__init__` too."""
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(map(module_at, found))


@cache
def modules() -> tuple[Module, ...]:
    return tuple(module for module in all_modules() if module.path.name != "__init__.py")


def modules_over_800_lines() -> int:
    return sum(module.text.count("\n") > 800 for module in modules())


def at_top_of_runner() -> list[str]:
    """Name runner's top-level modules, `__init__` included."""
    return sorted(path.name for path in (ROOT / "runner").glob("*.py"))


def single_importers() -> dict[str, str]:
    """Return the modules that exactly one module imports, one of the same folder."""
    known = {module.name: module for module in modules()}
    users: dict[str, set[str]] = defaultdict(set)
    for user in all_modules():
        for name in user.imports():
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != user.name:
                users[target].add(user.name)
    return {
        known[name].place: known[next(iter(who))].place
        for name, who in sorted(users.items())
        if len(who) == 1
        and next(iter(who)) in known
        and known[next(iter(who))].package == known[name].package
    }


def longest_import_chain() -> list[str]:
    """Return the longest chain of imports on load among the modules of the middle."""
    middle = {module.name: module for module in modules() if module.place.startswith(MIDDLE)}
    chains: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in chains:
            names = {*middle[name].imports(only_on_load=True)}
            targets = names | {imported.rpartition(".")[0] for imported in names}
            below = [chain(target) for target in sorted(targets & middle.keys() - {name})]
            chains[name] = [middle[name].place, *max(below, key=len, default=[])]
        return chains[name]

    return max(map(chain, middle), key=len)


def repeated_class_names() -> dict[str, list[str]]:
    """Return class names that occur more than once, with the modules that have them."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module.place)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def banned_openings() -> list[str]:
    """Name the docstrings that do not begin as STYLE asks: `Return`, not `Give` or `Tell`."""
    return [
        f"{module.place}:{line}: {text.splitlines()[0]}"
        for module in modules()
        for line, text in module.docstrings()
        if text.split()[0] in BANNED_OPENINGS
    ]


def banned_words() -> list[str]:
    """Name the lines of the product that have a word from the list of words not to use."""
    return [
        f"{module.place}:{number}: {match[0]}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), 1)
        for match in BANNED_WORDS.finditer(line)
    ]


_NAMING = ast.expr | ast.stmt | ast.arg | ast.alias | ast.pattern | ast.ExceptHandler


def empty_names() -> list[str]:
    """Name the places that call a value or function by a word that does not say what it is."""
    return [
        f"{module.place}:{node.lineno}: {name}"
        for module in modules()
        for node in module.nodes
        if isinstance(node, _NAMING)
        for kind in ("id", "attr", "arg", "name", "asname", "rest")
        if (name := str(getattr(node, kind, ""))).strip("_") in NO_NAMES
    ]


def imports_in_functions() -> list[str]:
    """Name each import in a function once, whatever functions lie around that."""
    found = {
        (module.place, node.lineno)
        for module in modules()
        for function in module.functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return [f"{place}:{line}" for place, line in sorted(found)]


def too_many_parameters() -> list[str]:
    setting = f"lint.pylint.max-args={MAX_PARAMETERS}"
    options = ["--quiet", "--isolated", "--ignore-noqa", "--select", "PLR0913", "--config", setting]
    told = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "--output-format", "json", *PACKAGES],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return [
        f"{Path(one['filename']).relative_to(ROOT)}:{one['location']['row']}: {one['message']}"
        for one in json.loads(told.stdout)
    ]


_TAGS = re.compile(
    r"</?(svg|g|rect|path|line|ul|li|p|div|span|table|t[rhd]|del|ins|form|input|h[1-6])[ >/]"
)


def html_in_f_strings() -> list[str]:
    """Name the runner's f-strings with HTML or SVG, which templates write and escape."""
    return [
        f"{module.place}:{node.lineno}"
        for module in modules()
        for node in module.nodes
        if isinstance(node, ast.JoinedStr)
        and module.place.startswith("runner/")
        and _TAGS.search(ast.unparse(node))
    ]


def kinds_of_steps_told_apart() -> list[str]:
    """Return where the runner or the language tells a kind of step by its name.

    That is a comparison, a look into a table or a `match` with an attribute `uses`.
    """
    found = []
    for module in modules():
        for node in module.nodes:
            if isinstance(node, ast.Compare):
                subjects = [node.left, *node.comparators]
            elif isinstance(node, ast.Match):
                subjects = [node.subject]
            elif isinstance(node, ast.Subscript):
                subjects = [node.slice]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get":
                subjects = [*node.args[:1]]
            else:
                continue
            if any(isinstance(part, ast.Attribute) and part.attr == "uses" for part in subjects):
                found.append(f"{module.place}:{node.lineno}: {ast.unparse(node)[:80]}")
    return [place for place in found if place.startswith(("runner/", "pipelines/"))]


_LOOKS = frozenset((
    "startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split",
    "find",
))  # fmt: skip
_SENTENCES = frozenset((
    "reason", "error", "message", "note", "why", "fault", "problem", "detail", "remedy", "sentence",
    "refusal", "msg",
))  # fmt: skip
"""Values and attributes that hold sentences."""
_MATCHES = ("match", "search", "fullmatch", "finditer", "findall", "sub", "split")
_TWO_WORDS = re.compile(r"[A-Za-z']{2,}[,:]?(?: |\\ |\\s\+?)[A-Za-z']+|^[A-Za-z]+ $")


def sentences_read() -> dict[str, str]:
    """Return where code looks for a piece of a sentence that the product itself makes.

    That is `startswith` and its like, `in`, or a regular expression, with two words that another
    text of the product has, or with any text, name or end of a sentence on what holds sentences,
    or on an error.
    """
    constants = {
        target.id: node.value
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    looks = [
        (module, subject, text, node)
        for module in modules()
        for node in module.nodes
        if isinstance(node, ast.Call | ast.Compare)
        for subject, texts in _looks(node, constants)
        for text in texts
    ]
    read = {id(text) for *_, text, _ in looks}
    made = "\n".join(
        node.value
        for module in modules()
        for docstrings in [{id(node.value) for node in module.nodes if isinstance(node, ast.Expr)}]
        for node in module.nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and id(node) not in read | docstrings
    )  # fmt: skip
    return {
        f"{module.place}:{node.lineno}": str(text.value)
        for module, subject, text, node in looks
        if (_is_sentence(subject) and re.search(r"[a-z]|\. $|\n  $", str(text.value)))
        or any(piece[0].replace("\\", "") in made for piece in _TWO_WORDS.finditer(str(text.value)))
    }


def _looks(
    node: ast.AST, constants: dict[str, ast.expr]
) -> Iterator[tuple[ast.expr, list[ast.Constant]]]:
    """Yield what an expression looks into, and the texts that it looks for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        subject, name = node.func.value, node.func.attr
        if name in _LOOKS:
            yield subject, [*_texts(node.args[0], constants)]
        elif isinstance(subject, ast.Name) and subject.id == "re":
            yield node.args[-1], [*_texts(node.args[0], constants)]
        elif isinstance(subject, ast.Name) and name in _MATCHES:  # a compiled pattern
            pattern = constants.get(subject.id)
            if isinstance(pattern, ast.Call) and pattern.args:
                yield node.args[-1], [*_texts(pattern.args[0], constants)]
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        yield node.comparators[0], [*_texts(node.left, constants)]


def _texts(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[ast.Constant]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    elif isinstance(node, ast.JoinedStr | ast.Tuple):
        for part in node.values if isinstance(node, ast.JoinedStr) else node.elts:
            yield from _texts(part, constants)
    elif isinstance(node, ast.FormattedValue):  # a name in a text
        yield ast.copy_location(ast.Constant(ast.unparse(node.value)), node)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from _texts(constants[node.id], {})


def _is_sentence(subject: ast.expr) -> bool:
    """Return whether a value is called like one that holds a sentence, or is an error's text."""
    if isinstance(subject, ast.Call) and getattr(subject.func, "attr", "") in ("lower", "casefold"):
        return _is_sentence(cast(ast.Attribute, subject.func).value)
    if isinstance(subject, ast.Call) and ast.unparse(subject.func) == "str" and subject.args:
        subject = subject.args[0]
        return isinstance(subject, ast.Name) and subject.id in ("error", "exc", "cause")
    name = subject.attr if isinstance(subject, ast.Attribute) else getattr(subject, "id", "")
    return name in _SENTENCES


def subprocess_wrappers() -> list[str]:
    return _calling(re.compile(r"(subprocess\.(Popen|run)|create_subprocess_exec|posix_spawn)$"))


def atomic_writes() -> list[str]:
    return _calling(re.compile(r"(\bos\.replace|\bos\.rename|os\.fsync)$"))


def backoffs() -> list[str]:
    """Name the modules that compute growing pauses by themselves; others use `Backoff`."""
    growing = re.compile(r"(pause|backoff|delay)\w*_s = .*(\*\*|2 ?\*|\* ?2\b)", re.IGNORECASE)
    return [module.place for module in modules() if growing.search(module.text)]


def _calling(pattern: re.Pattern[str]) -> list[str]:
    return [m.place for m in modules() if any(pattern.search(call) for call in m.calls())]


def main() -> None:
    """Print what the function that is named finds."""
    found = globals()[sys.argv[1]]()
    print(*(found.items() if isinstance(found, dict) else found), sep="\n")


if __name__ == "__main__":
    main()
