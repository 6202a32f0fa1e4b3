"""The steps of a file: their control keys, their ids, and the blocks that hold others."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from .checks import Checks
from .expressions import Expression, ExpressionError, Path, Template, Value
from .keys import ID_PATTERN, without_free
from .shape import ReplyKeys, StepKeys
from .texts import TEXT_OR_FILE, is_file
from .texts import read as read_file
from .tree import Block, Node, Reply, Step

_FOR_EACH = re.compile(r"\s*(\S+)\s+in\s+(\S.*)\Z", re.DOTALL)
_OF_BLOCKS = ("do", "where", "key", "max_parallel", "on_error")
_TAKEN = frozenset(
    ("inputs", "steps", "loop", "self", "true", "false", "none", "range", "dict", "namespace")
)


class Steps:
    """Reads steps, and knows which ids and names are taken."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._ids: dict[str, Path] = {}
        self._unnamed: dict[str, int] = {}

    def read(self, data: Any, at: Path, names: tuple[str, ...] = ()) -> tuple[Node, ...]:
        """Read a list of steps; `names` are the loop variables around it."""
        if not isinstance(data, list):
            return ()
        nodes = (self._node(item, (*at, index), names) for index, item in enumerate(data))
        return tuple(node for node in nodes if node is not None)

    def _node(self, data: Any, at: Path, names: tuple[str, ...]) -> Node | None:
        checks = self._checks
        if not isinstance(data, dict):
            checks.add(at, "a step is a mapping such as {id: docs, uses: files.scan}")
            return None
        data = without_free(data)
        keys = checks.table(StepKeys, data, at)
        self._shape(data, at)
        node_id, has_own = self._id(data, at)
        if "for_each" in data or "do" in data:
            return self._block(data, keys, node_id, has_own, at, names)
        return self._step(data, keys, node_id, has_own, at)

    def _id(self, data: dict[str, Any], at: Path) -> tuple[str, bool]:
        """Give the step's id, or a name for one without: no id can look like it."""
        given = data.get("id")
        if not (isinstance(given, str) and re.match(ID_PATTERN, given)):
            return self._made_id(data), False
        first = self._ids.get(given)
        if first is not None:
            line = self._checks.document.mark(first).line
            what = f"the id '{given}' is taken by the step in line {line}"
            remedy = "Ids are unique in the file; choose another one."
            self._checks.add((*at, "id"), what, remedy)
            return self._made_id(data), False
        self._ids[given] = (*at, "id")
        return given, True

    def _made_id(self, data: dict[str, Any]) -> str:
        base = "(for_each)" if "for_each" in data else f"({data.get('uses', 'step')})"
        number = self._unnamed.get(base, 0) + 1
        self._unnamed[base] = number
        return base if number == 1 else f"{base}#{number}"

    def _shape(self, data: dict[str, Any], at: Path) -> None:
        """Check which keys stand together."""
        add = self._checks.add
        if "for_each" in data:
            if "uses" in data:
                remedy = "Move the step into the block's `do`."
                add((*at, "uses"), "`uses` cannot stand beside `for_each`", remedy, is_key=True)
            if "with" in data:
                remedy = "Parameters belong to the steps in `do`."
                add((*at, "with"), "`with` cannot stand beside `for_each`", remedy, is_key=True)
            if "reply" in data:
                remedy = "It belongs to the step in `do` that asks a model."
                add((*at, "reply"), "`reply` cannot stand beside `for_each`", remedy, is_key=True)
            if "do" not in data:
                add(
                    (*at, "for_each"), "`for_each` needs `do`", "Add the steps to run.", is_key=True
                )
            elif data["do"] == []:
                add((*at, "do"), "`do` is empty", "Add the steps to run for each item.")
            return
        for name in _OF_BLOCKS:
            if name in data:
                remedy = "Remove it, or add `for_each: NAME in EXPRESSION`."
                add((*at, name), f"`{name}` belongs to `for_each`", remedy, is_key=True)
        if "uses" not in data and "do" not in data:
            remedy = "Add `uses: …` with the name of a step; `paddock steps` lists them."
            add(at, "this step has no `uses`", remedy)

    def _step(
        self, data: dict[str, Any], keys: StepKeys | None, node_id: str, has_own: bool, at: Path
    ) -> Step:
        given = data.get("with")
        given = without_free(given) if isinstance(given, dict) else {}
        params, errors = Value.scan(given)
        files = self._files(given, errors)
        for error in errors:
            self._checks.failed(error, (*at, "with", *error.path))
        uses = data.get("uses")
        return Step(
            id=node_id,
            at=at,
            mark=self._mark(data, at),
            uses=uses if isinstance(uses, str) else "",
            params=params,
            files=files,
            has_own_id=has_own,
            **self._controls(data, keys, at),
            reply=self._reply(data.get("reply"), (*at, "reply")),
            broken=frozenset(str(error.path[0]) for error in errors),
        )

    def _reply(self, data: Any, at: Path) -> Reply | None:
        """Read what the answer must be; what is wrong with its keys was told with the step's."""
        try:
            keys = ReplyKeys.model_validate(data)
        except ValidationError:
            return None
        checks = {
            index: check
            for index, source in enumerate(keys.check)
            if (check := self._checks.check(source, (*at, "check", index))) is not None
        }
        return Reply(keys.schema_, checks, keys.repair)

    def _files(self, given: dict[str, Any], errors: list[ExpressionError]) -> dict[str, Template]:
        """Read the template files that parameters name."""
        base, made = FilePath(self._checks.document.file).parent, {}
        for name, value in given.items():
            if name in TEXT_OR_FILE and is_file(value):
                try:
                    made[name] = read_file(base, value["file"])
                except ExpressionError as error:
                    error.path = (name, "file")
                    errors.append(error)
        return made

    def _block(
        self,
        data: dict[str, Any],
        keys: StepKeys | None,
        node_id: str,
        has_own: bool,
        at: Path,
        names: tuple[str, ...],
    ) -> Block:
        checks = self._checks
        var, over = self._loop(data.get("for_each"), (*at, "for_each"), names)
        controls = self._controls(data, keys, at)
        key = checks.expression(data.get("key"), (*at, "key"))
        return Block(
            id=node_id,
            at=at,
            mark=self._mark(data, at),
            var=var,
            over=over,
            body=self.read(data.get("do"), (*at, "do"), (*names, var)),
            has_own_id=has_own,
            where=checks.expression(data.get("where"), (*at, "where")),
            key=key,
            max_parallel=keys.max_parallel if keys else None,
            on_error=keys.on_error if keys else None,
            **controls,
        )

    def _mark(self, data: dict[str, Any], at: Path) -> Any:
        name = next((name for name in ("id", "uses", "for_each") if name in data), None)
        return self._checks.document.mark(at if name is None else (*at, name))

    def _controls(self, data: dict[str, Any], keys: StepKeys | None, at: Path) -> dict[str, Any]:
        """Read the keys that every step and block has."""
        checks = self._checks
        returns: Value | None = None
        if data.get("returns") is not None:
            returns = checks.value(data["returns"], (*at, "returns"), bare=True)
        cache = keys.cache if keys else None
        return {
            "needs": tuple(keys.needs) if keys else _words(data.get("needs")),
            "if_": checks.expression(data.get("if"), (*at, "if")),
            "retry": keys.retry if keys else None,
            "timeout": keys.timeout if keys else None,
            "cache": None if cache is None else cache == "auto",
            "returns": returns,
        }

    def _loop(self, text: Any, at: Path, names: tuple[str, ...]) -> tuple[str, Expression]:
        """Read `NAME in EXPRESSION`."""
        checks = self._checks
        nothing = Expression.of("[]")
        found = _FOR_EACH.match(text) if isinstance(text, str) else None
        if found is None:
            if isinstance(text, str):
                what = f"'{text}' does not read `NAME in EXPRESSION`"
                checks.add(at, what, "Write for example `doc in steps.docs.files`.")
            return "item", nothing
        var = found[1]
        if not re.match(ID_PATTERN, var):
            what = f"'{var}' cannot be a name: it takes small letters, digits and '_'"
            checks.add(at, what, "Write for example `doc in steps.docs.files`.")
        elif var in _TAKEN or var in names:
            what = f"the name '{var}' is taken"
            checks.add(at, what, "Choose another one.")
        return var, checks.expression(found[2], at) or nothing


def _words(given: Any) -> tuple[str, ...]:
    """Read `needs` of a step with another fault, so that its ids are checked all the same."""
    given = given if isinstance(given, list) else [given]
    return tuple(word for word in given if isinstance(word, str))
