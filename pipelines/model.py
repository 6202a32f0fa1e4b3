"""A document as a pipeline: every key checked, every expression compiled, every fault at once.

Knows no steps: what stands under `with` is checked by `runner.bind`, where their types are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from .checks import Checks
from .errors import PipelineError
from .expressions import Path, Value
from .inputs import Input, WrongInput, kind_of_default
from .keys import ID_PATTERN, Keys, without_free, without_free_within
from .shape import Controls, FileKeys, InputKeys, ModelKeys, SecretKeys
from .source import Document
from .steps import Steps
from .tree import Block, Elsewhere, Node, Pipeline, Step

if TYPE_CHECKING:
    from .claims import Test
    from .servers import Server

__all__ = ["Block", "Node", "Pipeline", "Step", "examine", "validate"]

K = TypeVar("K", bound=Keys)

NAMES_ELSEWHERE: Mapping[tuple[str, str], Set[str]] = {
    ("on", "webhook"): {"inputs", "payload", "secrets"},
    ("on", "notify"): {"inputs", "secrets"},
}
"""Which names texts outside of the steps may read, where that is more than the inputs."""
NAMES_OF_SERVERS = ("inputs", "secrets", "python")
"""`python` is the interpreter that runs Paddock."""


def validate(document: Document) -> Pipeline:
    """Read a document as a pipeline.

    Raises:
        PipelineError: with every fault of the file.
    """
    pipeline = examine(document)
    if pipeline.faults:
        raise PipelineError(pipeline.faults)
    return pipeline


def examine(document: Document) -> Pipeline:
    """Read a document as far as it can be read; its faults stand in the pipeline's `faults`.

    Raises:
        PipelineError: it is no mapping, so there is nothing to go on with.
    """
    checks = Checks(document)
    if not isinstance(document.data, dict):
        checks.add((), "a pipeline is a mapping with the key `steps`", "Begin with `steps:`.")
        raise PipelineError(checks.faults)
    return _Reader(checks).pipeline(without_free(document.data))


def name_of(document: Document, given: Any) -> str:
    """Give the pipeline's name; by default the file's."""
    if isinstance(given, str) and given:
        return given
    path = PurePath(document.file)
    return path.parent.name if path.stem == "pipeline" and path.parent.name else path.stem


def _named(data: Any) -> Iterator[tuple[str, Any]]:
    """Give what stands under names that the author chose."""
    yield from without_free(data).items() if isinstance(data, dict) else ()


class _Reader:
    """Reads the parts of a file one by one, so that a fault in one does not hide the others."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._document = checks.document
        self._elsewhere: list[Elsewhere] = []

    def pipeline(self, data: dict[str, Any]) -> Pipeline:
        checks = self._checks
        checks.table(FileKeys, data, ())
        steps = Steps(checks)
        servers = self._servers(data.get("mcpServers"))
        pipeline = Pipeline(
            document=self._document,
            name=name_of(self._document, data.get("name")),
            description=str(data.get("description") or ""),
            inputs=dict(self._inputs(data.get("inputs"))),
            models=dict(self._models(data.get("models"))),
            secrets=dict(self._secrets(data.get("secrets"))) | _variables(servers),
            servers=servers,
            defaults=self._part(Controls, data, "defaults") or Controls.model_validate({}),
            **self._triggers(data),
            tests=tuple(self._tests(data.get("tests"))),
            steps=steps.read(data.get("steps"), ("steps",)),
            returns=self._returns(data.get("returns")),
        )
        return replace(pipeline, elsewhere=tuple(self._elsewhere), faults=tuple(checks.faults))

    def _part(self, table: type[K], data: Mapping[str, Any], name: str) -> K | None:
        """Read a key that is one table."""
        if data.get(name) is None:
            return None
        written = without_free_within(data[name])
        for key, value in written.items() if isinstance(written, dict) else ():
            self._text(value, (name, key), NAMES_ELSEWHERE.get((name, key), {"inputs"}))
        return self._checks.table(table, data[name], (name,))

    def _text(self, data: Any, at: Path, names: Set[str], *, bare: bool = False) -> None:
        """Keep a text outside of the steps, for its references to be looked at."""
        if data is not None:
            value = self._checks.value(data, at, bare=bare)
            self._elsewhere.append(Elsewhere(at, value, frozenset(names)))

    def _returns(self, data: Any) -> Value | None:
        return None if data is None else self._checks.value(data, ("returns",), bare=True)

    def _triggers(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Read the parts that few files have; their tables take 8 ms to import."""
        tables = {"on": "On", "concurrency": "Concurrency", "budget": "Budget"}
        if not tables.keys() & data.keys():
            return {}
        from . import triggers

        return {name: self._part(getattr(triggers, of), data, name) for name, of in tables.items()}

    def _tests(self, data: Any) -> Iterator[Test]:
        if not data:
            return
        from . import claims

        yield from claims.read(self._checks, data, self._text)

    def _models(self, data: Any) -> Iterator[tuple[str, ModelKeys]]:
        for alias, item in _named(data):
            given = {"ref": item} if isinstance(item, str) else item
            model = self._checks.table(ModelKeys, given, ("models", alias))
            if model is not None and model.pool is not None:
                at: Path = ("models", alias, "pool")
                self._text(item["pool"].get("url"), (*at, "url"), {"inputs"})
                self._text(model.pool.key, (*at, "key"), {"inputs", "secrets"})
            # A faulty one still counts as known: no step is blamed for naming it.
            yield alias, model or ModelKeys.model_validate({"ref": "?"})

    def _inputs(self, data: Any) -> Iterator[tuple[str, Input]]:
        for name, item in _named(data):
            self._check_name(("inputs", name), f"'{name}' cannot be the name of an input")
            yield name, self._input(name, item, ("inputs", name))

    def _secrets(self, data: Any) -> Iterator[tuple[str, SecretKeys]]:
        for name, item in _named(data):
            at: Path = ("secrets", name)
            self._check_name(at, f"'{name}' cannot be the name of a secret")
            if isinstance(item, str):
                # Not a fault of its type alone: who writes this has written a password down.
                what = f"secret '{name}' is a text, and a secret is never written into the file"
                remedy = f"Write `{{env: {name.upper()}}}` or `{{file: PATH}}`."
                self._checks.add(at, what, remedy)
            keys = None if isinstance(item, str) else self._checks.table(SecretKeys, item, at)
            # A faulty one still counts as known: nobody is blamed for reading it.
            yield name, keys or SecretKeys.model_construct(env=name, file=None)

    def _servers(self, data: Any) -> Mapping[str, Server]:
        if not data:
            return {}
        from . import servers

        found = servers.read(data, self._checks)
        for server in found.values():
            names = frozenset(NAMES_OF_SERVERS)
            self._elsewhere.append(Elsewhere(server.at, server.texts, names))
        return found

    def _check_name(self, at: Path, what: str) -> None:
        if not re.match(ID_PATTERN, str(at[-1])):
            remedy = "Use small letters, digits and '_', beginning with a letter."
            self._checks.add(at, what, remedy, is_key=True)

    def _input(self, name: str, item: Any, at: Path) -> Input:
        if not isinstance(item, dict):
            kind = kind_of_default(item)
            return Input(name, kind, at, has_default=item is not None, default=item)
        keys = self._checks.table(InputKeys, item, at)
        if keys is None:
            return Input(name, "json", at, has_default=True)
        has_default = keys.default is not None
        is_required = keys.required if keys.required is not None else not has_default
        kind = keys.type or ("enum" if keys.values else kind_of_default(keys.default))
        made = Input(
            name=name,
            type=kind,
            at=at,
            has_default=has_default,
            default=keys.default,
            is_required=is_required,
            values=tuple(keys.values),
            min=keys.min,
            max=keys.max,
            description=keys.description,
            is_secret=keys.secret,
        )
        return self._with_sound_default(made)

    def _with_sound_default(self, made: Input) -> Input:
        if not made.has_default:
            return made
        try:
            made.checked(made.default)
        except WrongInput as error:
            what = f"the default of input '{made.name}' {error.message}"
            self._checks.add((*made.at, "default"), what, error.remedy)
        return made


def _variables(servers: Mapping[str, Server]) -> dict[str, SecretKeys]:
    """Give the secrets that stand for the environment variables of a JSON file of servers."""
    if not servers:
        return {}
    from .servers import secret_of

    names = {name for server in servers.values() for name in server.variables}
    return {secret_of(name): SecretKeys(env=name, file=None) for name in sorted(names)}
