"""What a pipeline asks consent for, exactly: a digest of each command, server, host and code file.

`paddock up` keeps these digests for each pipeline file (`unattended/consents.py`), so that a file
that is new, or asks for something else than it did, asks again. Prompts, documents and the inputs
of a run do not count. Commands count as they are written, with the defaults of the inputs that they
read; functions with the modules that they import from the same folder; scripts by their content.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Value
from paddock.steps import own_function

from .binding.bound import BoundPlan, BoundStep
from .binding.inner import USES
from .binding.tooling import has_tools
from .body import plans_of, steps_of
from .consent import Need, needs

_SCRIPTS = (".py", ".sh", ".bash", ".zsh", ".js", ".mjs", ".ts", ".rb", ".pl", ".php", ".lua", ".r",
            ".awk", ".jq", ".sql", ".ps1", ".bat", ".cmd", ".jar")  # fmt: skip
_MOST_MODULES = 200


class NotAgreed(PipelineError):
    """A pipeline asks for more than a person agreed to for its file."""

    def __init__(self, wanted: Collection[Need], file: Path) -> None:
        remedy = f"If you trust it: `paddock allow '{file}'`."
        words = "the pipeline wants to {}, and this file has no consent for that.".format
        super().__init__(Fault(words(one.what), remedy, one.mark) for one in wanted)


def refuse_unagreed(bound: BoundPlan, own: str, agreed: Collection[str], file: Path) -> None:
    """Refuse a pipeline that asks for more than was agreed to for its file.

    Raises:
        NotAgreed: with all that it wants.
    """
    if not asks_of(bound, own) <= frozenset(agreed):
        raise NotAgreed(needs(bound, own), file)


def asks_of(bound: BoundPlan, own: str) -> frozenset[str]:
    """Return the digests of all that a pipeline asks for; none where it needs no consent."""
    if not needs(bound, own):
        return frozenset()
    written = (json.dumps(one, sort_keys=True, default=str) for one in _asked(bound))
    return frozenset(hashlib.sha256(text.encode()).hexdigest() for text in written)


def _asked(bound: BoundPlan) -> Iterator[list[Any]]:
    """Yield each thing that is asked for, as plain data."""
    for plan in plans_of(bound):
        for pool in plan.pools.values():
            yield ["pool", sorted(pool.urls)]
        for name, keys in plan.pipeline.secrets.items():
            yield ["secret", name, keys.env, keys.file]
        for name, server in plan.pipeline.servers.items():
            texts = server.texts.data
            words = [texts.get("command"), *texts.get("args", ())]
            yield ["server", name, texts, _defaults(texts, plan), _scripts(words, plan)]
        for step in steps_of(plan.nodes):
            yield from _of_step(step, plan)
    on = bound.pipeline.on
    for notify in on.notify if on is not None else ():
        way = notify.model_dump(exclude={"when"})
        words = notify.command if isinstance(notify.command, list) else []
        yield ["notify", way, _defaults(way, bound), _scripts(words, bound)]


def _of_step(step: BoundStep, plan: BoundPlan) -> Iterator[list[Any]]:
    written = step.params.step.params.data
    written = written if isinstance(written, Mapping) else {}
    if step.uses == "run":
        command = written.get("command")
        words = command if isinstance(command, list) else []
        yield ["run", written, _defaults(written, plan), _scripts(words, plan)]
    elif step.uses == USES:  # what the inner pipeline fills into its commands
        yield ["pipeline", written, _defaults(written, plan)]
    elif own_function.is_function(step.uses):
        yield ["function", step.uses, _code(step.uses, plan.roots.base)]
    elif has_tools(step.params.step):
        yield from _of_tools(step.uses, written, plan)


def _of_tools(uses: str, written: Mapping[str, Any], plan: BoundPlan) -> Iterator[list[Any]]:
    from paddock.steps.toolbox import naming

    for one in naming.wanted(uses, written):
        named = naming.named(one.name, one.server, plan.pipeline.servers)
        code: Any = None
        if named is not None and named.kind == "function":
            code = _code(one.name, plan.roots.base)
        elif named is not None and named.kind == "installed":
            code = named.name
        options = dict(one.options)
        yield ["tool", one.name, one.server, options, _defaults(options, plan), code]


def _defaults(written: Any, plan: BoundPlan) -> dict[str, Any]:
    """Return the defaults of the inputs that a text reads: they are part of what is asked."""
    value, _ = Value.scan(written)
    read = {path[1] for path in value.references if path[0] == "inputs" and path[1:]}
    inputs = plan.pipeline.inputs
    return {name: inputs[name].default for name in sorted(read) if name in inputs}


def _scripts(words: Collection[Any], plan: BoundPlan) -> dict[str, str]:
    """Return digests of the programs and scripts in the pipeline's folders that a command names."""
    found: dict[str, str] = {}
    for word in map(str, words):
        file = named_file(word, plan.roots.base)
        if file is not None and file.is_relative_to(plan.roots.base):
            content = _content(file)
            if file.suffix.lower() in _SCRIPTS or content[:2] in (b"#!", b"\x7fE"):
                found[word] = hashlib.sha256(content).hexdigest()
    return found


def _code(name: str, base: Path) -> dict[str, str]:
    """Return digests of a function's file and of all that it imports from its folder."""
    found = own_function.NAMES.match(name)
    if found is None:
        return {}
    file = (base / found["file"]).resolve()
    return {str(one.relative_to(file.parent)): hashlib.sha256(_content(one)).hexdigest()
            for one in modules_of(file)}  # fmt: skip


def named_file(word: str, base: Path) -> Path | None:
    """Return the file that a word of a command names, if there is one."""
    try:
        file = (base / word).resolve()
        return file if file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a circle of links
        return None


def modules_of(file: Path) -> list[Path]:
    """Return a Python file and all that it imports from its own folder, by name."""
    found, waiting = {file: None}, [file]
    while waiting and len(found) < _MOST_MODULES:
        for module in _imported(waiting.pop(), file.parent):
            if module not in found:
                found[module] = None
                waiting.append(module)
    return sorted(found)


def _imported(file: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(_content(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] + [f"{node.module or ''}.{one.name}" for one in node.names]
        at = file.parent if isinstance(node, ast.ImportFrom) and node.level else folder
        for name in names:
            yield from _files_of(name.strip("."), at)


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of a module's name: itself, and the packages around it."""
    at = folder
    for part in filter(None, name.split(".")):
        if (at / f"{part}.py").is_file():
            yield at / f"{part}.py"
        at = at / part
        if (at / "__init__.py").is_file():
            yield at / "__init__.py"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
