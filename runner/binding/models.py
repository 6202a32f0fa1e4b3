"""The models that a pipeline names: checked, and as the engine wants them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from paddock.engine.elsewhere.address import BadAddress, base_url
from paddock.pipelines.errors import Fault, known
from paddock.pipelines.expressions import ExpressionError, Reference, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.sentences import faults_of
from paddock.pipelines.shape import ModelKeys, PoolKeys
from paddock.pipelines.tree import Pipeline, Step
from paddock.steps.sampling_params import SamplingParams

from .bound import BoundPool

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec, Role

ROLES: tuple[Role, ...] = ("chat", "embed")


class Models:
    """The models by their aliases, and the defaults; faults stand in `faults`."""

    def __init__(
        self,
        pipeline: Pipeline,
        base: Path,
        default_models: Mapping[Role, str],
        inputs: Mapping[str, Any],
        *,
        is_check: bool = False,
        label: str = "",
        later: Collection[str] = (),
    ) -> None:
        self.faults: list[Fault] = []
        self.pools: dict[str, BoundPool] = {}
        self._inputs = inputs
        self._is_check = is_check
        """Nobody has given inputs yet."""
        self._label = label
        """What the names of its pools begin with, so that none is another pipeline's."""
        self._later = later
        """Inputs whose values only show when a step runs the pipeline."""
        self._pipeline = pipeline
        self._base = base
        self.by_alias = {alias: self._spec(alias, keys) for alias, keys in pipeline.models.items()}
        self.defaults = dict(self._defaults(default_models))

    def of(self, step: Step, roles: frozenset[Role]) -> ModelSpec | None:
        """Give the model that a step uses; None where it uses none, or where that is a fault."""
        written = step.params.data.get("model") if roles else None
        if written is None:
            wanted = [role for role in ROLES if role in roles and role in self.defaults]
            return self.defaults[wanted[0]] if wanted else None
        at: Place = (*step.at, "with", "model")
        if not isinstance(written, str):
            return None  # its type is a fault that is told with the parameters
        if "{{" in written:
            remedy = "Use two steps with `if`."
            self._fault(at, f"the model of step '{_name(step)}' must be named as it is", remedy)
            return None
        if written not in self.by_alias:
            self._unknown(step, written, at)
            return None
        spec = self.by_alias[written]
        if spec.role not in roles:
            does = "writes text" if "chat" in roles else "makes vectors"
            what = f"step '{_name(step)}' {does}, but model '{written}' has the role '{spec.role}'"
            self._fault(at, what, self._of_roles(roles))
        return spec

    def besides(self, step: Step, kind: type[Any]) -> tuple[ModelSpec, ...]:
        """Return the models that a step asks besides its own: defaults of their roles."""
        roles_besides = getattr(kind, "roles_besides", None)
        roles = roles_besides(step.params.data) if roles_besides is not None else ()
        return tuple(
            self.defaults[role] for role in ROLES if role in roles and role in self.defaults
        )

    def _unknown(self, step: Step, written: str, at: Place) -> None:
        what = f"step '{_name(step)}' asks for model '{written}', which is not under `models`"
        if self.by_alias:
            names = known(written, self.by_alias)
            names = names.partition(" Did you mean")[0]
            self._fault(at, what, f"{names} Add it under `models` or correct the name.")
        else:
            self._fault(at, what, f"Add `models: {{{written}: …}}`, or leave `model` out.")

    def _of_roles(self, roles: frozenset[Role]) -> str:
        names = [repr(alias) for alias, spec in self.by_alias.items() if spec.role in roles]
        return f"Of the right role: {', '.join(names) or 'none'}."

    def _defaults(self, default_models: Mapping[Role, str]) -> Iterator[tuple[Role, ModelSpec]]:
        for role in ROLES:
            own = [spec for spec in self.by_alias.values() if spec.role == role]
            if len(own) == 1:
                yield role, own[0]
            elif role in default_models:
                from paddock.engine.request import ModelSpec  # `validate` has no use for it

                yield role, ModelSpec(default_models[role], role)

    def _spec(self, alias: str, keys: ModelKeys) -> ModelSpec:
        from paddock.engine.request import ModelSpec

        at: Place = ("models", alias)
        pool = "" if keys.pool is None else self._pool(alias, keys.pool, (*at, "pool"))
        return ModelSpec(
            ref=self._ref(keys.ref, self._ref_at(at)) if keys.pool is None else keys.ref,
            role=keys.role,
            n_ctx_tokens=keys.ctx,
            keep_alive_s=keys.keep_alive,
            params=self._params(keys, (*at, "params")),
            keeps_reasoning=keys.think != "drop",
            pool=pool,
        )

    def _pool(self, alias: str, keys: PoolKeys, at: Place) -> str:
        """Give the name of a pool elsewhere; models with the same servers and key share one."""
        urls: dict[str, None] = {}
        for number, written in enumerate(keys.url):
            written_at = self._pipeline.document.data["models"][alias]["pool"]["url"]
            place = (*at, "url", number) if isinstance(written_at, list) else (*at, "url")
            url = self._url(written, place)
            if url is not None:
                urls[url] = None
        key = None if keys.key is None else self._text(keys.key)
        tokenizer = (
            None if keys.tokenizer is None else self._ref(keys.tokenizer, (*at, "tokenizer"))
        )
        mark = self._pipeline.mark((*at, "url"))
        made = BoundPool(tuple(urls), key, tokenizer, mark)
        for name, other in self.pools.items():
            source = other.key.data if other.key is not None else None
            if (other.urls, source, other.tokenizer) == (made.urls, keys.key, tokenizer):
                return name
        name = f"{self._label}{alias}"
        self.pools[name] = made
        return name

    def _url(self, written: str, at: Place) -> str | None:
        """Give an address; None where it is at fault, or an input that is not known yet."""
        value = self._text(written)
        if value is None or not all(map(self._is_input, value.references)):
            return None  # told before, with the file
        lacking = sorted(path[1] for path in value.references if self._inputs.get(path[1]) is None)
        if lacking:
            self._lacking(lacking[0], at)
            return None
        try:
            text = value.render({"inputs": self._inputs})
        except ExpressionError as error:
            self._fault(at, error.message, error.remedy)
            return None
        try:
            return base_url(str(text))
        except BadAddress as error:
            self._fault(at, f"'{text}' {error.why}", error.remedy)
            return None

    def _is_input(self, path: Reference) -> bool:
        return len(path) > 1 and path[0] == "inputs" and path[1] in self._pipeline.inputs

    def _lacking(self, name: str, at: Place) -> None:
        """Say that an address is an input without a value, unless that is told or yet to come."""
        if name in self._later:
            what = f"input '{name}' is the address of a server, and must be known before a run"
            self._fault(at, what, "Give it as it is, or from the outermost pipeline's inputs.")
        elif not self._is_check and not self._pipeline.inputs[name].is_required:
            what = f"input '{name}' has no value, and it is the address of a server"
            self._fault(at, what, f"Give it: `-i {name}=http://…`.")

    def _text(self, written: str) -> Value | None:
        try:
            return Value.of(written)
        except ExpressionError:
            return None  # told before, with the file

    def _ref_at(self, at: Place) -> Place:
        data = self._pipeline.document.data["models"][at[-1]]
        return at if isinstance(data, str) else (*at, "ref")

    def _ref(self, ref: str, at: Place) -> str:
        """Return the name, or the absolute path of a file; a relative one is the YAML's folder's.

        A file of a hub is looked up under the name that `paddock pull` gives it: a run downloads
        nothing by itself.
        """
        from paddock.engine.store.names import is_path

        if ref.startswith("hf:"):
            return self._hub_ref(ref, at)
        if is_path(ref):
            return str((self._base / Path(ref).expanduser()).resolve())
        return ref

    def _hub_ref(self, ref: str, at: Place) -> str:
        from paddock.engine.errors import InvalidName
        from paddock.engine.store.transfer.sources import read_source

        try:
            return str(read_source(ref).name)
        except InvalidName:
            remedy = "Write `hf:OWNER/REPO`, `hf:OWNER/REPO:Q8_0` or `hf:OWNER/REPO/FILE.gguf`."
            self._fault(at, f"'{ref}' names no model of a hub", remedy)
            return ref

    def _params(self, keys: ModelKeys, at: Place) -> Mapping[str, object]:
        try:
            return SamplingParams.model_validate(keys.params).given()
        except ValidationError as error:
            document = self._pipeline.document
            self.faults += faults_of(error, SamplingParams, keys.params, document, at)
            return {}

    def _fault(self, at: Place, message: str, remedy: str) -> None:
        self.faults.append(Fault(f"{message}.", remedy, self._pipeline.mark(at)))


def _name(step: Step) -> str:
    return step.id if step.has_own_id else step.uses
