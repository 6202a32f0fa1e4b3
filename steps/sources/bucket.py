"""A folder of S3, of a machine by SFTP, or of a web server as a source, by fsspec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import unquote, urljoin, urlsplit

from pydantic import AfterValidator, Field

from paddock.steps.extras import BUCKET_LIBRARIES

from .mirror import (
    Answer,
    Gone,
    Had,
    Left,
    Source,
    SourceAway,
    SourceDocument,
    SourceListing,
    SourceParams,
    SourceRefused,
    Whole,
    fetch_one_by_one,
)

T = TypeVar("T")

_CONNECT_S, _READ_S = 15, 60
_REQUEST_S = 600.0  # for a whole one, however its bytes trickle
_MOST_PAGES = 10_000
_REFUSALS = ("AuthenticationException", "NoCredentialsError", "PermissionError", "ValueError")
_CHANGES = ("ETag", "mtime", "LastModified", "Last-Modified")


def _checked_url(url: str) -> str:
    kind, is_parted, place = url.partition("://")
    host, _, _ = place.partition("/")
    if kind not in BUCKET_LIBRARIES or not is_parted or not host or "@" in url:
        kinds = "://`, `".join(BUCKET_LIBRARIES)
        raise ValueError(f"begins with `{kinds}://`, and has no user name")
    return url


class BucketParams(SourceParams):
    """A folder elsewhere, with those below it."""

    url: Annotated[str, AfterValidator(_checked_url)] = Field(
        description="`s3://bucket/folder`, `sftp://host/folder`, `https://host/page/of/links/`."
    )
    options: dict[str, Any] = Field(default={}, description="Those of fsspec, such as `key`.")

    kind = "bucket"

    @property
    def address(self) -> str:
        parts, given = urlsplit(self.url), self.options
        host = parts.netloc if parts.scheme == "s3" else parts.netloc.lower()
        client = given.get("client_kwargs")
        inner = client.get("endpoint_url") if isinstance(client, dict) else None
        of = [given.get("endpoint_url") or inner, given.get("port"), given.get("username")]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')} {of}"

    @property
    def is_web(self) -> bool:
        return self.url.startswith("http")

    @contextmanager
    def opened(self, credential: str) -> Iterator[Source]:
        kind = self.url.partition(":")[0]
        with _errors():
            fsspec = import_module("fsspec")
            made = fsspec.get_filesystem_class(kind)
            given = {**_defaults(kind), **made._get_kwargs_from_urls(self.url), **self.options}
            try:
                files = made(skip_instance_cache=True, **given)
            except TypeError as error:
                raise SourceRefused(f"does not take that: {error}", "Correct `options`.") from error
            if kind == "sftp":
                files.ftp.get_channel().settimeout(_READ_S)
        with closing(files.client) if kind == "sftp" else nullcontext():
            yield Bucket(self, files)


class Bucket(Source):
    """Blocks; used by one thread at a time."""

    def __init__(self, params: BucketParams, files: Any) -> None:
        super().__init__()
        self._params, self._files = params, files
        self._root = str(files._strip_protocol(params.url)).rstrip("/") + "/"
        self.is_web, self._is_sftp = params.is_web, params.url.startswith("sftp")
        self._listed = set[str]()

    def listing(self, cursor: str) -> SourceListing:
        documents = list[SourceDocument]()
        with _errors():
            for path, info in self._all():
                identity = path.removeprefix(self._root)
                if self.is_web and "?" in identity:  # links that sort a page
                    continue
                name, size = unquote(identity) if self.is_web else identity, info.get("size") or 0
                self._listed.add(identity)
                documents.append(SourceDocument(identity, name, size, _version(path, info)))
        is_another = bool(cursor) and cursor != self._root  # what is gone there was not deleted
        is_whole = not is_another and not self.is_web  # a page without links may be an error
        return SourceListing(self._root, documents, is_another, is_whole)

    def _all(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        # Not `find`, which leaves out a folder that cannot be listed, as if that were empty
        folders, seen = [self._root], set[str]()
        while folders:
            seen.add(folder := folders.pop())
            if self.is_web and len(seen) > _MOST_PAGES:  # one may link to itself below
                raise SourceRefused(f"has more than {_MOST_PAGES:,} pages", "Correct `url`.")
            try:
                found = self._answer(lambda: self._files.ls(folder, detail=True))
            except FileNotFoundError:
                bucket, _, below = folder.partition("/")  # S3 has no empty folders
                is_s3 = self._params.url.startswith("s3:") and below and self._files.exists(bucket)
                if folder == self._root and not is_s3:
                    raise SourceRefused("has no such folder", "Correct `url`.") from None
                continue
            for info in found:
                path = self._resolved(info["name"])
                if path == folder or not path.startswith(self._root):  # a link elsewhere
                    continue
                if info["type"] == "directory":
                    folders += {f"{path.rstrip('/')}/"} - seen
                elif info["type"] == "file":
                    with suppress(FileNotFoundError):  # a link that leads nowhere
                        yield path, self._info(path) if self.is_web else info

    def _resolved(self, path: str) -> str:
        """Return the address of a link without `.`, `..` and a place in the page."""
        if not self.is_web:
            return path
        parts = urlsplit(path)
        return urljoin(path, f"{parts.path}?{parts.query}" if parts.query else parts.path)

    def _info(self, path: str) -> Mapping[str, Any]:
        try:
            return dict(self._answer(lambda: self._files.info(path)))
        except Exception as error:
            if getattr(error, "status", 0) // 100 != 4:
                raise
            return {}  # its fetch reports the refusal

    def _answer(self, call: Callable[[], T]) -> T:
        try:
            return _in_time(call)
        except FileNotFoundError as error:
            if self.is_web and isinstance(error.__cause__, Exception):  # fsspec takes all for that
                raise error.__cause__ from None
            raise

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        return fetch_one_by_one(identities, self._answer_of)

    def _answer_of(self, identity: str) -> Answer:
        if identity not in self._listed:
            return Gone()
        content, most = self.content(identity), self._params.max_bytes
        if len(content) > most:
            return Left(f"larger than `max_bytes` ({most:,})", len(content))
        return Had(content, Whole.END)

    def content(self, identity: str) -> bytes:
        def read() -> bytes:
            with self._files.open(self._root + identity, "rb") as file:
                return bytes(file.read(self._params.max_bytes + 1))

        try:
            with _errors():
                return self._answer(read)
        except FileNotFoundError as error:
            raise SourceRefused("it is not there any more") from error

    # --- for outputs

    def version(self, name: str) -> str | None:
        """Return what is another one where an object changed; None: it is not there."""
        path = self._root + name
        try:
            with _errors():
                info = self._answer(lambda: self._files.info(path))
        except FileNotFoundError:
            return None
        return _version(path, info) if info["type"] == "file" else None

    def put(self, name: str, content: bytes) -> None:
        """Write an object whole: no reader sees a part of it."""
        path, files = self._root + name, self._files
        folder, _, last = path.rpartition("/")

        def write() -> None:
            if not self._is_sftp:
                files.pipe_file(path, content)
                return
            files.makedirs(folder, exist_ok=True)
            files.pipe_file(aside := f"{folder}/.{last}.paddock", content)
            files.mv(aside, path)

        with _errors():
            self._answer(write)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), _errors():
            self._answer(lambda: self._files.rm_file(self._root + name))


def _version(path: str, info: Mapping[str, Any]) -> str:
    change = next((str(info[key]) for key in _CHANGES if info.get(key)), "")
    return f"{path} {info.get('size') or 0} {change}"


def _in_time(call: Callable[[], T]) -> T:
    """Return the result of a call that may block for ever, in a thread that is left alone then."""
    done = SimpleQueue[tuple[T | None, BaseException | None]]()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # raised again
            done.put((None, error))

    Thread(target=work, daemon=True).start()
    try:
        result, error = done.get(timeout=_REQUEST_S)
    except Empty:
        raise SourceAway(f"it took more than {_REQUEST_S:.0f} s") from None
    if error is not None:
        raise error
    return cast("T", result)


def _defaults(kind: str) -> dict[str, Any]:
    """Return options that use no secret of this machine which the pipeline does not name."""
    if kind == "s3":
        limits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S}
        return {"anon": True, "config_kwargs": limits, "use_listings_cache": False}
    if kind == "sftp":
        limits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _CONNECT_S)
        own = dict.fromkeys(("look_for_keys", "allow_agent"), False)
        return {**limits, **own, "host_key_policy": _known_hosts_policy()}

    async def refuse_redirect(answer: Any) -> None:  # to another server
        if 300 <= answer.status < 400:
            raise SourceRefused(f"redirects to {answer.headers.get('Location')}", "Write that.")

    return {"client_kwargs": {"raise_for_status": refuse_redirect}, "allow_redirects": False}


def _known_hosts_policy() -> Any:
    """Return what refuses a machine whose key `known_hosts` lacks; fsspec takes any."""
    paramiko = import_module("paramiko")

    class OnlyKnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc, name-defined]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            file = Path("~/.ssh/known_hosts").expanduser()
            if not (file.exists() and paramiko.HostKeys(str(file)).check(hostname, key)):
                remedy = f"Compare it, and add it: ssh-keyscan {hostname} >> {file}"
                raise SourceRefused(f"shows a key that '{file}' does not have", remedy)

    return OnlyKnownHosts()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (SourceAway, SourceRefused, FileNotFoundError):
        raise
    except Exception as error:  # each of the libraries has its own
        if type(error).__name__ in _REFUSALS or getattr(error, "status", 0) in (401, 403):
            raise SourceRefused(f"does not let in: {error}", "Correct `options`.") from error
        raise SourceAway(f"{type(error).__name__}: {error}".rstrip(".")) from error
