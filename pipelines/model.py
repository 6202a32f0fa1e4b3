"""Pipeline model: a checked and compiled YAML document, or all its faults.

`parse_pipeline` returns a `Pipeline` of steps and blocks with their places. Knows no step types:
what stands under `with` is checked by the runner's binding, where the types of parameters are
known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path as FilePath
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import ValidationError

from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.pipelines.reply_check import Check

from .comparison_keys import CompareKeys, GoldKeys
from .e_invoices import InvoiceTerm
from .errors import Fault, Mark, PipelineError
from .expressions import Expression, ExpressionError, Path, Reference, Template, Value
from .input_values import Input, WrongInput, kind_of_default
from .keys import (
    ID_PATTERN,
    ControlKeys,
    EscalateKeys,
    FileKeys,
    InputKeys,
    Keys,
    ModelKeys,
    OnError,
    ReplyKeys,
    RetryKeys,
    ReviewKeys,
    SecretKeys,
    StepKeys,
    TimeoutKeys,
    without_x_keys,
    without_x_keys_nested,
)
from .label_choices import Choice
from .mcp_servers import McpServer, read_servers, secret_of
from .pipeline_tests import TestKeys, read_tests, written_tests
from .prompt_file import TEXT_OR_FILE_PARAMETERS, is_file_reference, read_template_file
from .reply_schema import ReplySchema, read_reply_schema
from .triggers import BudgetKeys, ConcurrencyKeys, OnKeys
from .validation import FaultCollector
from .yaml_source import YamlDocument


class EvidenceSpec(Struct, frozen=True):
    sources: tuple[Expression, ...]
    only: tuple[str, ...] = ()
    """The fields that are looked for; empty: all."""
    language: str = ""
    """That of the sources; empty: it is recognised where it decides."""

    @property
    def references(self) -> frozenset[Reference]:
        return frozenset().union(*(source.references for source in self.sources))


class ReplySpec(Struct, frozen=True):
    written: Any
    """The schema as written; None without one."""
    form: ReplySchema
    checks: Mapping[int, Check]
    """By index in the list, without those that cannot be parsed."""
    repair: int
    evidence: EvidenceSpec | None = None
    wants_confidence: bool = False
    readings: Mapping[str, InvoiceTerm] = field(default_factory=dict)
    """Fields, and the term of an e-invoice that states each."""

    @property
    def schema(self) -> Any:
        """As JSON Schema; None where the answer is free text."""
        return self.form.schema

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The fields of `schema` whose values are labels of a list that only a run knows."""
        return self.form.choices


class ReviewSpec(Struct, frozen=True):
    when: Expression
    by: tuple[str, ...] = ()
    """Who may decide; empty: everyone."""
    ttl_s: float | None = None
    on_expiry: Literal["quarantine", "accept", "skip"] = "quarantine"
    also: float | None = None
    """The random share of other answers that is asked about as well."""

    @property
    def is_off(self) -> bool:
        """Whether it asks about no answer that passes its checks."""
        return self.also is None and self.when.source.strip().lower() == "false"


class EscalationSpec(Struct, frozen=True):
    to: str
    when: Expression
    also: float | None = None
    """The random share of other answers of which it is asked as well."""


class _NodeKeys(Struct, frozen=True, kw_only=True):
    """What steps and blocks have in common. `at` is the path in the document."""

    id: str
    at: Path
    mark: Mark
    has_own_id: bool = True
    needs: tuple[str, ...] = ()
    if_: Expression | None = None
    retry: RetryKeys | None = None
    timeout: TimeoutKeys | None = None
    cache: bool | None = None
    returns: Value | None = None


class StepNode(_NodeKeys, frozen=True, kw_only=True):
    uses: str
    params: Value
    files: Mapping[str, Template] = field(default_factory=dict)
    """Parameters that name a template file, with its content."""
    reply: ReplySpec | None = None
    escalate: EscalationSpec | None = None
    review: ReviewSpec | None = None
    broken: frozenset[str] = frozenset()
    """Parameters in which a fault was found."""
    is_filter: bool = False
    """The steps behind it are done only where its answer is yes."""

    @property
    def written(self) -> Mapping[str, Any]:
        texts = {name: template.source for name, template in self.files.items()}
        return {**self.params.data, **texts}


class Block(_NodeKeys, frozen=True, kw_only=True):
    """A `for_each` and the steps that run for each item."""

    var: str
    over: Expression
    body: tuple[Node, ...]
    where: Expression | None = None
    """Selects items of the list; None: all."""
    key: Expression | None = None
    max_parallel: int | None = None
    on_error: OnError | None = None
    keep: Expression | None = None
    """Whether an item passed the filters of `body`; None: there are none."""


Node: TypeAlias = StepNode | Block


class OutsideText(Struct, frozen=True):
    """A text outside of steps that may hold expressions, and the names known there."""

    at: Path
    text: Value
    names: frozenset[str]


class Pipeline(SelectiveFields, Struct, frozen=True):
    uncompared = ("faults",)

    document: YamlDocument
    name: str
    description: str
    steps: tuple[Node, ...]
    defaults: ControlKeys
    inputs: Mapping[str, Input] = field(default_factory=dict)
    models: Mapping[str, ModelKeys] = field(default_factory=dict)
    returns: Value | None = None
    on: OnKeys | None = None
    concurrency: ConcurrencyKeys | None = None
    budget: BudgetKeys | None = None
    gold: GoldKeys | None = None
    compare: CompareKeys | None = None
    tests: tuple[TestKeys, ...] = ()
    secrets: Mapping[str, SecretKeys] = field(default_factory=dict)
    servers: Mapping[str, McpServer] = field(default_factory=dict)
    code: tuple[str, ...] | None = None
    """Globs of the files that its programs load; None: all of its folder."""
    elsewhere: tuple[OutsideText, ...] = ()
    """Texts outside of the steps: in `models`, `on`, `concurrency` and `tests`."""
    faults: tuple[Fault, ...] = ()

    def place_of_test(self, name: str) -> Path:
        """Return where a test is written: those that are faulty are not in `tests`."""
        written = written_tests(self.document.data.get("tests"))
        named = (at for at, test in written if isinstance(test, dict) and test.get("name") == name)
        return next(named, ("tests",))

    def mark(self, at: Path) -> Mark:
        return self.document.mark(at)

    def nodes(self) -> Iterator[Node]:
        waiting = [*reversed(self.steps)]
        while waiting:
            node = waiting.pop()
            yield node
            if isinstance(node, Block):
                waiting += reversed(node.body)


K = TypeVar("K", bound=Keys)

_FOR_EACH = re.compile(r"\s*(\S+)\s+in\s+(\S.*)\Z", re.DOTALL)
_FILTER = {
    "uses": "chat",
    "reply": {"schema": {"answer": "enum[yes, no]"}, "confidence": True},
    "review": {"when": "confidence.low < 0.8"},
}
"""What a `filter` is, but for its prompt."""
_NOT_FOR_FILTERS = {
    "uses": "A filter asks a model: remove one of them.",
    "reply": "Its answer is `yes` or `no`.",
    "returns": "The steps behind it read its answer.",
    "if": "Write the condition as `where` of the block, or into the question.",
}
_NOT_FOR_BLOCKS = {
    "filter": "It belongs to the steps in `do`.",
    "uses": "Move the step into the block's `do`.",
    "with": "Parameters belong to the steps in `do`.",
    "reply": "It belongs to the step in `do` that asks a model.",
    "escalate": "It belongs to the step in `do` that asks a model.",
    "review": "It belongs to the step in `do` that asks a model.",
}
_RESERVED_NAMES = frozenset(
    ("inputs", "steps", "loop", "self", "true", "false", "none", "range", "dict", "namespace")
)


class StepParser(Struct, eq=False):
    _checks: FaultCollector
    _ids: dict[str, Path] = field(default_factory=dict)
    _unnamed: dict[str, int] = field(default_factory=dict)

    def read(self, data: Any, at: Path, names: tuple[str, ...] = ()) -> tuple[Node, ...]:
        if not isinstance(data, list):
            return ()
        nodes = (self._node(item, (*at, index), names) for index, item in enumerate(data))
        return tuple(node for node in nodes if node is not None)

    def _node(self, data: Any, at: Path, names: tuple[str, ...]) -> Node | None:
        checks = self._checks
        if not isinstance(data, dict):
            checks.add(at, "a step is a mapping such as {id: docs, uses: files.scan}")
            return None
        data = without_x_keys(data)
        keys = checks.table(StepKeys, data, at)
        self._shape(data, at, is_in_block=bool(names))
        own_id = self._own_id(data, at)
        name = next((n for n in ("id", "uses", "filter", "for_each") if n in data), None)
        common = {
            "id": own_id or self._generated_id(data),
            "at": at,
            "mark": checks.document.mark(at if name is None else (*at, name)),
            "has_own_id": own_id is not None,
            **self._controls(data, keys, at),
        }
        if "for_each" in data or "do" in data:
            return self._block(data, keys, names, common)
        return self._step(_filter_as_chat(data) if "filter" in data else data, common)

    def _block(
        self,
        data: dict[str, Any],
        keys: StepKeys | None,
        names: tuple[str, ...],
        common: dict[str, Any],
    ) -> Block:
        at: Path = common["at"]
        var, over = self._loop(data.get("for_each"), (*at, "for_each"), names)
        body, keep = _behind_filters(self.read(data.get("do"), (*at, "do"), (*names, var)))
        return Block(
            **common,
            var=var,
            over=over,
            body=body,
            keep=keep,
            where=self._checks.expression(data.get("where"), (*at, "where")),
            key=self._checks.expression(data.get("key"), (*at, "key")),
            max_parallel=keys.max_parallel if keys else None,
            on_error=keys.on_error if keys else None,
        )

    def _step(self, data: dict[str, Any], common: dict[str, Any]) -> StepNode:
        at: Path = common["at"]
        parameters = data.get("with")
        parameters = without_x_keys(parameters) if isinstance(parameters, dict) else {}
        params, errors = Value.scan(parameters)
        base = FilePath(self._checks.document.file).parent
        files: dict[str, Template] = {}
        for name, value in parameters.items():
            if name in TEXT_OR_FILE_PARAMETERS and is_file_reference(value):
                try:
                    files[name] = read_template_file(base, value["file"])
                except ExpressionError as refused:
                    refused.path = (name, "file")
                    errors.append(refused)
        for error in errors:
            self._checks.failed(error, (*at, "with", *error.path))
        uses = data.get("uses")
        return StepNode(
            **common,
            uses=uses if isinstance(uses, str) else "",
            params=params,
            files=files,
            reply=self._reply(data["reply"], (*at, "reply")) if "reply" in data else None,
            escalate=self._escalate(data, at) if "escalate" in data else None,
            review=self._review(data, at) if "review" in data else None,
            broken=frozenset(str(error.path[0]) for error in errors) if errors else frozenset(),
            is_filter="filter" in data,
        )

    def _own_id(self, data: dict[str, Any], at: Path) -> str | None:
        """Return the step's id as written; None where it has none, or it cannot be used."""
        own_id = data.get("id")
        if not (isinstance(own_id, str) and re.match(ID_PATTERN, own_id)):
            return None
        first = self._ids.get(own_id)
        if first is not None:
            line = self._checks.document.mark(first).line
            what = f"the id '{own_id}' is already used by the step in line {line}"
            remedy = "Ids must be unique in the file; choose another one."
            self._checks.add((*at, "id"), what, remedy)
            return None
        self._ids[own_id] = (*at, "id")
        return own_id

    def _generated_id(self, data: dict[str, Any]) -> str:
        """Return a name that is no valid id, so that it cannot be one of the author's."""
        kind = "filter" if "filter" in data else data.get("uses", "step")
        base = "(for_each)" if "for_each" in data else f"({kind})"
        number = self._unnamed.get(base, 0) + 1
        self._unnamed[base] = number
        return base if number == 1 else f"{base}#{number}"

    def _shape(self, data: dict[str, Any], at: Path, *, is_in_block: bool) -> None:
        add = self._checks.add
        if "for_each" in data:
            for name, remedy in _NOT_FOR_BLOCKS.items():
                if name in data:
                    what = f"`{name}` cannot be combined with `for_each`"
                    add((*at, name), what, remedy, is_key=True)
            if "do" not in data:
                remedy = "Add the steps to run."
                add((*at, "for_each"), "`for_each` needs `do`", remedy, is_key=True)
            elif data["do"] == []:
                add((*at, "do"), "`do` is empty", "Add the steps to run for each item.")
            return
        for name in ("do", "where", "key", "max_parallel", "on_error"):
            if name in data:
                remedy = "Remove it, or add `for_each: NAME in EXPRESSION`."
                add((*at, name), f"`{name}` belongs to `for_each`", remedy, is_key=True)
        if "filter" in data:
            for name, remedy in _NOT_FOR_FILTERS.items():
                if name in data:
                    what = f"`{name}` cannot be combined with `filter`"
                    add((*at, name), what, remedy, is_key=True)
            given = data.get("with")
            for name in ("prompt", "messages"):
                if isinstance(given, dict) and name in given:
                    remedy = "The question stands under `filter`."
                    add((*at, "with", name), f"a filter takes no `{name}`", remedy, is_key=True)
            if not is_in_block:
                remedy = "Write it into `do`; of a list, `where` chooses items without a model."
                add(
                    (*at, "filter"), "`filter` belongs to the steps of a block", remedy, is_key=True
                )
            if isinstance(data["filter"], str) and "{{" not in data["filter"]:
                remedy = "Write it into the question, such as `{{ steps.text.text }}`."
                add((*at, "filter"), "this question names no text that it is about", remedy)
        elif "uses" not in data and "do" not in data:
            remedy = "Add `uses: …` with the name of a step; `paddock steps` lists them."
            add(at, "this step has no `uses`", remedy)

    def _reply(self, data: Any, at: Path) -> ReplySpec | None:
        if (keys := _sound(ReplyKeys, data)) is None:
            return None
        checks = {
            index: check
            for index, source in enumerate(keys.check)
            if (check := self._checks.check(source, (*at, "check", index))) is not None
        }
        evidence = None
        if keys.evidence is not None:
            written, place = data["evidence"], (*at, "evidence")
            if isinstance(written, dict):
                written, place = written["from"], (*place, "from")
            sources = (
                self._checks.expression(source, place if written == source else (*place, index))
                for index, source in enumerate(keys.evidence.from_)
            )
            known = tuple(source for source in sources if source is not None)
            evidence = EvidenceSpec(known, tuple(keys.evidence.only), keys.evidence.language)
        base = FilePath(self._checks.document.file).parent
        written = keys.schema_
        form = ReplySchema(None) if written is None else read_reply_schema(written, base)
        return ReplySpec(
            written, form, checks, keys.repair, evidence, keys.confidence, keys.readings
        )

    def _escalate(self, data: Any, at: Path) -> EscalationSpec | None:
        if (keys := _sound(EscalateKeys, data["escalate"])) is None:
            return None
        when = self._checks.expression(keys.when, (*at, "escalate", "when"))
        return EscalationSpec(keys.to, when, keys.also) if when is not None else None

    def _review(self, data: Any, at: Path) -> ReviewSpec | None:
        if (keys := _sound(ReviewKeys, data["review"])) is None:
            return None
        when = self._checks.expression(keys.condition, (*at, "review", "when"))
        if when is None:
            return None
        return ReviewSpec(when, tuple(keys.by), keys.ttl, keys.on_expiry, keys.also)

    def _controls(self, data: dict[str, Any], keys: StepKeys | None, at: Path) -> dict[str, Any]:
        controls: dict[str, Any] = {
            "if_": self._checks.expression(data.get("if"), (*at, "if")),
            "returns": self._checks.returns(data.get("returns"), at),
        }
        if keys is None:  # another key is at fault: the ids of `needs` are still checked
            needs = data.get("needs")
            words = needs if isinstance(needs, list) else [needs]
            return {**controls, "needs": tuple(word for word in words if isinstance(word, str))}
        cache = None if keys.cache is None else keys.cache == "auto"
        controls |= {"needs": tuple(keys.needs), "cache": cache}
        return {**controls, "retry": keys.retry, "timeout": keys.timeout}

    def _loop(self, text: Any, at: Path, names: tuple[str, ...]) -> tuple[str, Expression]:
        checks = self._checks
        nothing = Expression.of("[]")
        found = _FOR_EACH.match(text) if isinstance(text, str) else None
        if found is None:
            if isinstance(text, str):
                what = f"'{text}' is not `NAME in EXPRESSION`"
                checks.add(at, what, "Write for example `doc in steps.docs.files`.")
            return "item", nothing
        var = found[1]
        if not re.match(ID_PATTERN, var):
            what = f"'{var}' cannot be a name: only small letters, digits and '_' are allowed"
            checks.add(at, what, "Write for example `doc in steps.docs.files`.")
        elif var in _RESERVED_NAMES or var in names:
            what = f"the name '{var}' is already used"
            checks.add(at, what, "Choose another one.")
        return var, checks.expression(found[2], at) or nothing


def _filter_as_chat(data: dict[str, Any]) -> dict[str, Any]:
    """Return the `chat` step that a filter stands for, as its author would have written it."""
    written = data.get("with")
    parameters = {**(written if isinstance(written, dict) else {}), "prompt": data["filter"]}
    chat = {**_FILTER, **data, "uses": "chat", "reply": _FILTER["reply"], "with": parameters}
    if "escalate" in data and "review" not in data:
        del chat["review"]  # a larger model is asked instead of a person
    return chat


def _behind_filters(body: tuple[Node, ...]) -> tuple[tuple[Node, ...], Expression | None]:
    """Return the steps of a block with their filters as conditions; and `Block.keep`.

    What stands behind a filter is done only where the answer is yes; a filter behind another one is
    such a step, so the last one decides.
    """
    guarded = list[Node]()
    keep: Expression | None = None
    passed = ""  # the condition of the last filter
    for node in body:
        if passed:
            both = f"({node.if_.source}) and {passed}" if node.if_ is not None else passed
            node = replace(node, if_=Expression.of(both))
        if isinstance(node, StepNode) and node.is_filter:
            step = f"steps[{node.id!r}]"
            passed = f"{step}.output.answer == 'yes'"
            keep = Expression.of(f"not {step}.skipped and {passed}")
        guarded.append(node)
    return tuple(guarded), keep


def _sound(table: type[K], data: Any) -> K | None:
    """Return a part's keys; None where they have faults, which were reported with the step."""
    try:
        return table.model_validate(data)
    except ValidationError:
        return None


NAMES_OUTSIDE_STEPS: Mapping[tuple[str, str], Set[str]] = {
    ("on", "webhook"): {"inputs", "payload", "secrets"},
    ("on", "notify"): {"inputs", "secrets"},
}
"""Names that texts outside of steps may read, where that is more than the inputs."""
NAMES_IN_SERVERS = frozenset(("inputs", "secrets", "python"))
"""`python` is the interpreter that runs Paddock."""


def parse_pipeline(document: YamlDocument) -> Pipeline:
    """Parse a document as far as possible; its faults are in the pipeline's `faults`.

    Raises:
        PipelineError: it is not a mapping.
    """
    checks = FaultCollector(document)
    if not isinstance(document.data, dict):
        checks.add((), "a pipeline is a mapping with the key `steps`", "Begin with `steps:`.")
        raise PipelineError(checks.faults)
    return _PipelineParser(checks).pipeline(without_x_keys(document.data))


class _PipelineParser:
    """Parses the parts of a file one by one, so that a fault does not hide others."""

    def __init__(self, checks: FaultCollector) -> None:
        self._checks = checks
        self._document = checks.document
        self._elsewhere: list[OutsideText] = []

    def pipeline(self, data: dict[str, Any]) -> Pipeline:
        checks = self._checks
        whole = checks.table(FileKeys, data, ())
        steps = StepParser(checks)
        name, path = data.get("name"), PurePath(self._document.file)
        if not (isinstance(name, str) and name):  # that of the file, or of its folder
            is_of_folder = path.stem == "pipeline" and path.parent.name
            name = path.parent.name if is_of_folder else path.stem
        servers = read_servers(data["mcpServers"], checks) if "mcpServers" in data else {}
        variables: set[str] = set()
        for server in servers.values():
            self._elsewhere.append(OutsideText(server.at, server.texts, NAMES_IN_SERVERS))
            variables |= server.variables
        readers = {"inputs": self._inputs, "models": self._models, "secrets": self._secrets}
        parts: dict[str, Any] = {
            key: dict(read(without_x_keys(data[key])))
            for key, read in readers.items()
            if isinstance(data.get(key), dict)
        }
        # The environment variables that a JSON file of servers names
        for variable in sorted(variables):
            keys = SecretKeys(env=variable, file=None, prefect=None)
            parts.setdefault("secrets", {})[secret_of(variable)] = keys
        tables: dict[str, type[Keys]] = {"on": OnKeys, "concurrency": ConcurrencyKeys}
        tables |= {"budget": BudgetKeys, "gold": GoldKeys, "defaults": ControlKeys}
        for key, table in tables.items():
            if data.get(key) is not None:
                parts[key] = self._part(table, data[key], key)
        if data.get("compare") is not None:
            parts["compare"] = checks.table(CompareKeys, data["compare"], ("compare",))
        if "tests" in data:
            parts["tests"] = tuple(read_tests(checks, data["tests"], self._text))
        return Pipeline(
            document=self._document,
            name=name,
            description=str(data.get("description") or ""),
            steps=steps.read(data.get("steps"), ("steps",)),
            returns=checks.returns(data.get("returns"), ()),
            **{**parts, "defaults": parts.get("defaults") or ControlKeys.model_validate({})},
            servers=servers,
            code=None if whole is None or whole.code is None else tuple(whole.code),
            elsewhere=tuple(self._elsewhere),
            faults=checks.faults,
        )

    def _part(self, table: type[K], data: Any, name: str) -> K | None:
        written = without_x_keys_nested(data)
        for key, value in written.items() if isinstance(written, dict) else ():
            names = {"inputs"} if key in table.model_fields else {"inputs", "secrets"}
            self._text(value, (name, key), NAMES_OUTSIDE_STEPS.get((name, key), names))
        return self._checks.table(table, data, (name,))

    def _text(self, data: Any, at: Path, names: Set[str], *, bare: bool = False) -> None:
        """Keep a text outside of steps; `plan` checks its references."""
        if data is not None:
            value = self._checks.value(data, at, bare=bare)
            self._elsewhere.append(OutsideText(at, value, frozenset(names)))

    def _models(self, data: dict[str, Any]) -> Iterator[tuple[str, ModelKeys]]:
        for alias, item in data.items():
            table = {"ref": item} if isinstance(item, str) else item
            model = self._checks.table(ModelKeys, table, ("models", alias))
            if model is not None and model.pool is not None:
                at: Path = ("models", alias, "pool")
                self._text(item["pool"].get("url"), (*at, "url"), {"inputs"})
                self._text(model.pool.key, (*at, "key"), {"inputs", "secrets"})
            # A faulty one counts as known: a step that names it is not at fault.
            yield alias, model or ModelKeys.model_validate({"ref": "?"})

    def _inputs(self, data: dict[str, Any]) -> Iterator[tuple[str, Input]]:
        for name, item in data.items():
            self._check_name(("inputs", name), f"'{name}' cannot be the name of an input")
            yield name, self._input(name, item, ("inputs", name))

    def _secrets(self, data: dict[str, Any]) -> Iterator[tuple[str, SecretKeys]]:
        for name, item in data.items():
            at: Path = ("secrets", name)
            self._check_name(at, f"'{name}' cannot be the name of a secret")
            if isinstance(item, str):
                # More than a wrong type: the author has probably written a password here.
                what = f"secret '{name}' is a text; secrets must not be written into the file"
                remedy = f"Write `{{env: {name.upper()}}}` or `{{file: PATH}}`."
                self._checks.add(at, what, remedy)
            keys = None if isinstance(item, str) else self._checks.table(SecretKeys, item, at)
            # A faulty one counts as known: an expression that reads it is not at fault.
            yield name, keys or SecretKeys.model_construct(env=name, file=None)

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
        declared = Input(
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
            columns=keys.columns,
            table=keys.table,
        )
        try:
            if has_default:
                declared.checked(keys.default)
        except WrongInput as error:
            what = f"the default of input '{name}' {error.message}"
            self._checks.add((*at, "default"), what, error.remedy)
        return declared


def step_nodes(pipeline: Pipeline) -> Iterator[StepNode]:
    """Yield the steps that are written, those in blocks included."""
    return (node for node in pipeline.nodes() if isinstance(node, StepNode))
