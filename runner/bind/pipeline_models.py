"""The models that a pipeline names: checked, translated for the engine, faults with their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import InvalidName
from paddock.engine.system.server_address import BadAddress, base_url
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import ModelKeys, PoolKeys, SamplingParams
from paddock.pipelines.model import EscalationSpec, Pipeline, StepNode
from paddock.pipelines.validation import FaultCollector
from paddock.steps.registry import own_roles, roles_besides

from .bound import BoundEscalation, BoundPool
from .inputs import GivenInputs, reads_only_inputs
from .sub_pipelines import SubPipelinePlace

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec, Role

ROLES: tuple[Role, ...] = ("chat", "embed")


class ModelBinder:
    def __init__(
        self,
        pipeline: Pipeline,
        base: Path,
        default_models: Mapping[Role, str],
        given: GivenInputs,
        place: SubPipelinePlace,
        checks: FaultCollector,
    ) -> None:
        self.pools: dict[str, BoundPool] = {}
        self._checks = checks
        self._inputs = given.values
        self._is_check = given.is_check
        self._place = place
        self._pipeline = pipeline
        self._base = base
        self.by_alias = {alias: self._spec(alias, keys) for alias, keys in pipeline.models.items()}
        self.defaults: dict[Role, ModelSpec] = {}
        for role in ROLES:
            of_role = [spec for spec in self.by_alias.values() if spec.role == role]
            if len(of_role) == 1:
                self.defaults[role] = of_role[0]
            elif role in default_models:
                self.defaults[role] = _model_spec(ref=default_models[role], role=role)

    def of(self, step: StepNode, kind: type[Any]) -> ModelSpec | None:
        """Return the model that a step uses; None where it uses none, or where that is a fault."""
        roles = own_roles(kind, step.params.data)
        written = step.params.data.get("model") if roles else None
        if written is None:
            matching = [role for role in ROLES if role in roles and role in self.defaults]
            return self.defaults[matching[0]] if matching else None
        if not isinstance(written, str):
            return None  # its type is reported with the parameters
        return self._named(step, written, (*step.at, "with", "model"), roles)

    def escalation(
        self, step: StepNode, spec: EscalationSpec, model: ModelSpec | None
    ) -> BoundEscalation | None:
        """Return the escalation of a step whose own model is `model`; None where it is a fault."""
        at, alias = (*step.at, "escalate", "to"), spec.to
        to = self._named(step, alias, at, frozenset({"chat"}))
        if to is None:
            return None
        if to == model:
            what = f"`escalate.to`: '{alias}' is the model that step '{_step_label(step)}' has"
            self._checks.add(at, what, "Name a larger one.")
        return BoundEscalation(spec, to)

    def _named(
        self, step: StepNode, written: str, at: Place, roles: frozenset[Role]
    ) -> ModelSpec | None:
        label = _step_label(step)
        if "{{" in written:
            what = f"the model of step '{label}' must be named as it is"
            self._checks.add(at, what, "Use two steps with `if`.")
            return None
        if written not in self.by_alias:
            remedy = f"Add `models: {{{written}: …}}`, or leave `model` out."
            if self.by_alias:
                known = did_you_mean(written, self.by_alias, asks=False)
                remedy = f"{known} Add it under `models` or correct the name."
            what = f"step '{label}' asks for model '{written}', which is not under `models`"
            self._checks.add(at, what, remedy)
            return None
        spec = self.by_alias[written]
        if spec.role not in roles:
            does = "writes text" if "chat" in roles else "makes vectors"
            what = f"step '{label}' {does}, but model '{written}' has the role '{spec.role}'"
            names = [repr(alias) for alias, other in self.by_alias.items() if other.role in roles]
            self._checks.add(at, what, f"Of the right role: {', '.join(names) or 'none'}.")
        return spec

    def extra_models(self, step: StepNode, kind: type[Any]) -> tuple[ModelSpec, ...]:
        """Return the models that a step asks besides its own: defaults of their roles."""
        roles = {*roles_besides(kind, step.params.data)}
        if step.reply is not None and any(choice.keys.narrow for choice in step.reply.choices):
            roles.add("embed")
        return tuple(
            self.defaults[role] for role in ROLES if role in roles and role in self.defaults
        )

    def _spec(self, alias: str, keys: ModelKeys) -> ModelSpec:
        at: Place = ("models", alias)
        pool = "" if keys.pool is None else self._pool(alias, keys.pool, (*at, "pool"))
        ref = keys.ref
        if keys.pool is None:
            is_alone = isinstance(self._pipeline.document.data["models"][alias], str)
            ref = self._ref(ref, at if is_alone else (*at, "ref"))
        params = self._checks.table(SamplingParams, keys.params, (*at, "params"))
        return _model_spec(
            ref=ref,
            role=keys.role,
            n_ctx_tokens=keys.ctx,
            keep_alive_s=keys.keep_alive,
            params=params.given() if params is not None else {},
            keeps_reasoning=keys.think != "drop",
            pool=pool,
        )

    def _pool(self, alias: str, keys: PoolKeys, at: Place) -> str:
        """Return the name of a pool elsewhere; models with the same servers and key share one."""
        urls: dict[str, None] = {}
        for number, written in enumerate(keys.url):
            written_at = self._pipeline.document.data["models"][alias]["pool"]["url"]
            place = (*at, "url", number) if isinstance(written_at, list) else (*at, "url")
            url = self._url(written, place)
            if url is not None:
                urls[url] = None
        key = None if keys.key is None else Value.scan(keys.key)[0]
        tokenizer = (
            None if keys.tokenizer is None else self._ref(keys.tokenizer, (*at, "tokenizer"))
        )
        mark = self._pipeline.mark((*at, "url"))
        pool = BoundPool(tuple(urls), key, tokenizer, mark)
        for name, other in self.pools.items():
            source = other.key.data if other.key is not None else None
            if (other.urls, source, other.tokenizer) == (pool.urls, keys.key, tokenizer):
                return name
        name = f"{self._place.label}{alias}"
        self.pools[name] = pool
        return name

    def _url(self, written: str, at: Place) -> str | None:
        """Return an address; None where it is at fault, or an input that is not known yet."""
        value, errors = Value.scan(written)
        if errors or not reads_only_inputs(value.references, self._pipeline.inputs):
            return None  # reported with the file
        names = sorted(path[1] for path in value.references if path[0] == "inputs")
        name = next((name for name in names if self._inputs.get(name) is None), None)
        if name is not None:
            if name in self._place.later:
                what = f"input '{name}' is the address of a server, and must be known before a run"
                remedy = "Give it as it is, or from the outermost pipeline's inputs."
                self._checks.add(at, what, remedy)
            elif not self._is_check and not self._pipeline.inputs[name].is_required:
                what = f"input '{name}' has no value, and it is the address of a server"
                self._checks.add(at, what, f"Give it: `-i {name}=http://…`.")
            return None
        try:
            text = value.render({"inputs": self._inputs})
        except ExpressionError as error:
            self._checks.add(at, error.message, error.remedy)
            return None
        try:
            return base_url(str(text))
        except BadAddress as error:
            self._checks.add(at, f"'{text}' {error.why}", error.remedy)
            return None

    def _ref(self, ref: str, at: Place) -> str:
        """Return the name, or the absolute path of a file; a relative one is the YAML's folder's.

        A file of a hub is looked up under the name that `paddock pull` gives it: a run downloads
        nothing by itself.
        """
        from paddock.engine.models import model_names, pull_sources

        if not ref.startswith("hf:"):
            is_file = model_names.is_path(ref)
            return str((self._base / Path(ref).expanduser()).resolve()) if is_file else ref
        try:
            return str(pull_sources.parse_source(ref).name)
        except InvalidName:
            remedy = "Write `hf:OWNER/REPO`, `hf:OWNER/REPO:Q8_0` or `hf:OWNER/REPO/FILE.gguf`."
            self._checks.add(at, f"'{ref}' names no model of a hub", remedy)
            return ref


def _step_label(step: StepNode) -> str:
    return step.id if step.has_own_id else step.uses


def _model_spec(**fields: Any) -> ModelSpec:
    from paddock.engine.request import ModelSpec

    return ModelSpec(**fields)
