"""Files of a Hugging Face repository: which there are, and which of them are the model's.

The hub names their digests, so they are verified. `HF_ENDPOINT` and `HF_TOKEN` are variables of
huggingface_hub, which only this module knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import httpx
from huggingface_hub import constants

from paddock.engine.model_file_parts import split_file_names
from paddock.engine.system.records import Struct
from paddock.engine.system.text import listed

from .model_names import quantisation_label
from .transfer import TransferOptions
from .transfer_client import url_origin
from .transfer_errors import (
    HostUnreachable,
    NotPublished,
    NoUsableModel,
    TransferError,
    TransferRefused,
)

PREFERRED_QUANTISATION = "Q4_K_M"
"""The default: nearly as good as the full weights, at a quarter of the size."""

_SPLIT_SUFFIX = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_MAX_SHOWN_FILES = 12  # of a repository's files, in an error

_PRIVATE_ADVICE = "Check the spelling; for a private repository, set HF_TOKEN."


class HubFile(Struct, frozen=True):
    name: str
    url: str
    size_bytes: int
    digest: str
    """`sha256:…`; empty for a small text, which has another digest on the hub."""


class HubAuth:
    def __init__(self, token: str | None, hub: str) -> None:
        self.origin = url_origin(httpx.URL(hub))
        self.header = f"Bearer {token}" if token else None

    async def answer(self, response: httpx.Response) -> bool:
        return False


def hub_address(options: TransferOptions) -> str:
    return (options.hub or constants.ENDPOINT).rstrip("/")


def list_hub_files(
    repository: str, revision: str | None, options: TransferOptions
) -> tuple[list[HubFile], HubAuth]:
    """Return a repository's files, and what is sent for them; blocks.

    Raises:
        NotPublished: there is no such repository or revision.
        TransferRefused: the repository needs a login, or its terms must be accepted.
        HostUnreachable: the hub does not answer.
    """
    from huggingface_hub import HfApi, errors, get_token, hf_hub_url  # takes a second

    hub, token = hub_address(options), get_token()
    host = httpx.URL(hub).netloc.decode("ascii")
    with _hub_errors(errors, host, repository, revision):
        api = HfApi(endpoint=hub, token=token or False)
        info = api.model_info(
            repository, revision=revision, files_metadata=True, timeout=options.stall_s
        )
    files = [
        HubFile(
            sibling.rfilename,
            hf_hub_url(repository, sibling.rfilename, revision=info.sha or revision, endpoint=hub),
            sibling.size or 0,
            f"sha256:{sibling.lfs.sha256}" if sibling.lfs is not None else "",
        )
        for sibling in info.siblings or ()
    ]
    return files, HubAuth(token, hub)


@contextmanager
def _hub_errors(
    errors: ModuleType, host: str, repository: str, revision: str | None
) -> Iterator[None]:
    # The base classes are those of huggingface_hub's HTTP library.
    unreached: tuple[type[Exception], ...] = (*errors.HfHubHTTPError.__bases__, OSError)
    where = f"{host}/{repository}"
    try:
        yield
    except errors.GatedRepoError as error:
        accept_terms_advice = (
            f"Accept the terms of {where} at https://{where}, then set HF_TOKEN to a token of your "
            f"account."
        )
        raise TransferRefused(host, 403, "", accept_terms_advice) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        missing = f"{where} at {revision}" if revision else where
        raise NotPublished(missing, _PRIVATE_ADVICE) from error
    except errors.HFValidationError as error:
        raise TransferError(f"{where}: {error}") from error
    except errors.HfHubHTTPError as error:
        status, message = error.response.status_code, error.server_message or ""
        if status == 404:
            raise NotPublished(where, _PRIVATE_ADVICE) from error
        raise TransferRefused(host, status, message) from error
    except unreached as error:
        raise HostUnreachable(host, str(error).partition("] ")[2] or str(error)) from error


def is_projector_file(name: str) -> bool:
    """Return whether a file is a vision projector, by the names of llama.cpp's tools."""
    return "mmproj" in name.rsplit("/", 1)[-1].lower()


def choose_model_files(files: Sequence[HubFile], requested: str, where: str) -> list[HubFile]:
    """Choose a model's file as Ollama does: the requested one, Q4_K_M, or the first.

    Returns all parts of a split model; single files are preferred.

    `requested` is a quantisation or a file's name, in any case; empty: the default.

    Raises:
        NoUsableModel: no file fits, with those that there are; or a part is missing.
    """
    models = [file for file in files if _is_model_file(file.name)]
    if not models:
        raise NoUsableModel(
            where, "there is no GGUF file in it; look for a repository named …-GGUF"
        )
    fitting = [file for file in models if _fits_request(file.name, requested)]
    if not fitting:
        words = list(dict.fromkeys(quantisation_label(file.name) or file.name for file in models))
        labels = listed(words, _MAX_SHOWN_FILES)
        raise NoUsableModel(where, f"it has no {requested}; it has {labels}")
    whole = [file for file in fitting if not _SPLIT_SUFFIX.search(file.name)]
    among = whole or fitting
    preferred = (file for file in among if quantisation_label(file.name) == PREFERRED_QUANTISATION)
    # The parts of a split model; of another, its one file.
    chosen = next(preferred, among[0])
    by_name = {file.name: file for file in models}
    folder, slash, base = chosen.name.rpartition("/")
    names = [f"{folder}{slash}{name}" for name in split_file_names(base)]
    if missing := [name for name in names if name not in by_name]:
        raise NoUsableModel(f"{where}: {chosen.name}", f"'{missing[0]}', a part of it, is missing")
    return [by_name[name] for name in names]


def _is_model_file(name: str) -> bool:
    small = name.lower()
    return small.endswith(".gguf") and not is_projector_file(name) and "imatrix" not in small


def choose_projector(files: Sequence[HubFile]) -> HubFile | None:
    """Choose a model's projector: half precision, or else the first; None: there is none."""
    found = [file for file in files if is_projector_file(file.name) and file.name.endswith(".gguf")]
    rank = {"F16": 0, "BF16": 1, "Q8_0": 2}
    return min(found, key=lambda file: rank.get(quantisation_label(file.name), 3), default=None)


def _fits_request(name: str, requested: str) -> bool:
    base, label = name.rsplit("/", 1)[-1].lower(), quantisation_label(name).lower()
    names = (label, name.lower(), base, base.removesuffix(".gguf"))
    return not requested or requested.lower() in names
