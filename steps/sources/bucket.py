"""A folder of S3, of a machine by SFTP, or of a web server as a source, by fsspec."""

from __future__ import annotations

import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Annotated, Any
from urllib.parse import unquote, urljoin, urlsplit

from pydantic import AfterValidator, Field

from paddock.engine.system.http import decoded
from paddock.steps.extras import BUCKET_LIBRARIES

from .fetching import N_AT_ONCE, answer_of, fetch_in_order, in_order, known_end, started
from .mirror import (
    MOST_FAILURES,
    Answer,
    Gone,
    Left,
    Source,
    SourceAway,
    SourceDocument,
    SourceListing,
    SourceParams,
    SourceRefused,
    Whole,
)

_CONNECT_S, _READ_S = 15, 60
_N_OBJECTS = 16  # of S3 at once: 1,000 small ones in 4 s where each request takes 20 ms
_SESSION_S = 600.0  # for one of SFTP, where the server has a limit
_PIECE_BYTES = 1024**2
_IDS = ("key", "username", "aws_access_key_id")
_SECRETS = ("secret", "password", "aws_secret_access_key")
_KEYS = (*_IDS, *_SECRETS, "token", "aws_session_token")
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
            given = {**_options(kind, self.options), **made._get_kwargs_from_urls(self.url)}
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
        self._is_s3 = params.url.startswith("s3")
        self._sessions = _SftpSessions(files.client) if self._is_sftp else None
        self._paths, self._sizes = dict[str, str](), dict[str, int | None]()

    def listing(self, cursor: str) -> SourceListing:
        documents = list[SourceDocument]()
        with _errors():
            for path, info in self._all():
                own = path.removeprefix(self._root)
                text = _as_text(own)
                identity = own if text == own else f"//{text}"  # which begins no other
                # Web servers say 0 of what they make when it is fetched
                size = info.get("size") or (None if self.is_web else info.get("size"))
                self._paths[identity], self._sizes[identity] = path, size
                name = posixpath.normpath(unquote(text) if self.is_web else text)
                marker = _version(_as_text(path), info)
                documents.append(SourceDocument(identity, name, size or 0, marker))
        is_another = bool(cursor) and cursor != self._root  # what is gone there was not deleted
        is_whole = not is_another and not self.is_web  # a page without links may be an error
        return SourceListing(self._root, documents, is_another, is_whole)

    def _all(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if not self.is_web:
            yield from self._objects() if self._is_s3 else self._walk()
            return
        start = len(self._root)
        pages = (path for path, _ in self._walk() if "?" not in path[start:])  # they sort a page
        n_failures = 0
        for path, info in in_order(pages, self._info):
            try:
                facts = info()
            except Exception:  # its fetch says why; several mean that the server is away
                n_failures += 1
                if n_failures == MOST_FAILURES:
                    raise
                facts = {}
            yield path, facts

    def _objects(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield all of S3, which says of each page whether it is the last: what does not is none.

        fsspec takes another document, or an empty answer, for a folder without objects, and asks
        for ever where a page names itself as the next one.
        """
        bucket, prefix, _ = self._files.split_path(self._root)
        sync, tokens = import_module("fsspec.asyn").sync, set[str]()
        of: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, **self._files.req_kw}
        while True:
            call = partial(sync, self._files.loop, self._files._call_s3, "list_objects_v2", **of)
            try:
                page = started(call)()
            except FileNotFoundError:
                raise SourceRefused("has no such folder", "Correct `url`.") from None
            is_last, token = page.get("IsTruncated") is False, page.get("NextContinuationToken")
            if not (is_last or token):
                raise SourceAway("it answers with something that is no list of objects")
            for each in page.get("Contents", ()):
                if not each["Key"].endswith("/"):  # which stands for a folder
                    yield f"{bucket}/{each['Key']}", {**each, "size": each["Size"]}
            if is_last:
                return
            if token in tokens or len(tokens) == _MOST_PAGES:
                raise SourceRefused("lists its objects without an end")
            tokens.add(token)
            of["ContinuationToken"] = token

    def _walk(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        # Not `find`, which leaves out a folder that cannot be listed, as if that were empty
        folders, seen = [self._root], set[str]()
        while folders:
            seen.add(folder := folders.pop())
            if self.is_web and len(seen) > _MOST_PAGES:  # one may link to itself below
                raise SourceRefused(f"has more than {_MOST_PAGES:,} pages", "Correct `url`.")
            try:
                found = started(partial(self._list, folder))()
            except FileNotFoundError as error:
                if self.is_web and isinstance(error.__cause__, Exception):
                    raise error.__cause__ from None  # fsspec takes all for that
                if folder == self._root:
                    raise SourceRefused("has no such folder", "Correct `url`.") from None
                continue
            for info in found:
                path = info["name"]
                if self.is_web:  # without `.`, `..` and a place in the page
                    parts = urlsplit(path)
                    path = urljoin(path, parts.path + (parts.query and f"?{parts.query}"))
                if path == folder or not path.startswith(self._root):  # a link elsewhere
                    continue
                if info["type"] == "directory":
                    folders += {f"{path.rstrip('/')}/"} - seen
                elif info["type"] == "file":
                    yield path, info

    def _list(self, folder: str) -> Sequence[Mapping[str, Any]]:
        if self._sessions is None:
            return [*self._files.ls(folder, detail=True)]
        with self._sessions.use() as sftp:
            return [*sftp.entries(folder)]

    def _info(self, path: str) -> Mapping[str, Any]:
        """Return what the server says of a document; nothing where its fetch reports why."""
        try:
            return dict(self._files.info(path))
        except FileNotFoundError as error:  # fsspec takes all for that
            cause = error.__cause__
            if isinstance(cause, SourceRefused) or hasattr(cause, "status"):
                return {}
            raise cause or error from None

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        most, n_at_once = self._params.max_bytes, _N_OBJECTS if self._is_s3 else N_AT_ONCE
        return fetch_in_order(identities, self.answer, most, self._sizes, n_at_once)

    def answer(self, identity: str, most_bytes: int) -> Answer:
        """Return what becomes of a document, of which so many bytes may be read."""
        if (path := self._paths.get(identity)) is None:
            return Gone()
        size = self._sizes[identity]
        content, whole_by = self._read(path, most_bytes)
        if len(content) <= most_bytes and size not in (None, len(content)):
            return Left(f"{len(content):,} bytes came, where {size:,} are listed")
        return answer_of(content, whole_by or (Whole.LENGTH if size else None), most_bytes)

    def content(self, name: str) -> bytes:
        """Return an object, which need not be listed; of one that is too large its start."""
        read = partial(self._read, self._root + name, self._params.max_bytes)
        return started(read)()[0]

    def _read(self, path: str, most_bytes: int) -> tuple[bytes, Whole | None]:
        """Return one byte more than may be read at most, and how it is known that this is all."""
        try:
            with _errors():
                if self._sessions is not None:
                    with self._sessions.use() as sftp:
                        return sftp.content(path, most_bytes), Whole.END
                read = self._read_web if self.is_web else self._read_object
                sync = import_module("fsspec.asyn").sync
                content, whole_by = sync(self._files.loop, read, path, most_bytes)
                return content, whole_by
        except FileNotFoundError as error:
            raise SourceRefused("it is not there any more") from error

    async def _read_object(self, path: str, most_bytes: int) -> tuple[bytes, Whole | None]:
        files = self._files
        bucket, key, version = files.split_path(path)
        of = {"VersionId": version} if version else {}
        answer = await files._call_s3("get_object", Bucket=bucket, Key=key, **of, **files.req_kw)
        async with answer["Body"] as body:
            return await _start(body.read, most_bytes), Whole.LENGTH

    async def _read_web(self, url: str, most_bytes: int) -> tuple[bytes, Whole | None]:
        files, given = self._files, dict(self._files.kwargs)
        given["headers"] = {**(given.get("headers") or {}), "Accept-Encoding": "identity"}
        session, at = await files.set_session(), files.encode_url(url)
        async with session.get(at, auto_decompress=False, **given) as answer:
            files._raise_not_found_for_status(answer, url)
            if answer.status != 200:
                raise SourceAway(f"it answers with status {answer.status}")
            content = await _start(answer.content.read, most_bytes)
            whole_by = known_end(answer.headers, content)
            coding = answer.headers.get("Content-Encoding", "")
            # A compressed file is one also where the server says that it compressed it
            if urlsplit(url).path.endswith((".gz", ".tgz")):
                return content, whole_by
            if (plain := decoded(content, coding, most_bytes)) is None:
                raise SourceRefused(f"it is compressed as '{coding}', and damaged or unknown")
            return plain, whole_by

    # --- for outputs

    def version(self, name: str) -> str | None:
        """Return what is another one where an object changed; None: it is not there."""
        path = self._root + name
        try:
            with _errors():
                info = started(partial(self._files.info, path))()
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
            started(write)()

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), _errors():
            started(partial(self._files.rm_file, self._root + name))()


def _version(path: str, info: Mapping[str, Any]) -> str:
    """Return what is another one where a document has changed, or may have."""
    change = next((str(info[key]) for key in _CHANGES if info.get(key)), f"at {time.time_ns()}")
    return f"{path} {info.get('size') or 0} {change}"


async def _start(read: Callable[[int], Any], most_bytes: int) -> bytes:
    """Return an answer, to one byte more than may be read at most: a read returns what has come."""
    content = bytearray()
    while len(content) <= most_bytes and (piece := await read(_PIECE_BYTES)):
        content += piece
    return bytes(content[: most_bytes + 1])


def _as_text(path: str) -> str:
    """Return a path as it can be written down, also where its bytes are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        of_bytes = path.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
        return of_bytes.decode("utf-8", "backslashreplace")
    return path


class _SftpSessions:
    """Sessions of one connection, each used by one thread at a time."""

    def __init__(self, client: Any) -> None:
        self._client, self._kind = client, _sftp_session_class()
        self._free, self._lock = SimpleQueue[Any](), Lock()
        self._n_open, self._n_most = 0, N_AT_ONCE

    @contextmanager
    def use(self) -> Iterator[Any]:
        session = self._take()
        try:
            yield session
        except (FileNotFoundError, PermissionError, SourceRefused):
            self._free.put(session)
            raise
        except BaseException:
            with self._lock:
                self._n_open -= 1
            session.close()
            raise
        self._free.put(session)

    def _take(self) -> Any:
        with self._lock:
            with suppress(Empty):
                return self._free.get_nowait()
            if self._n_open < self._n_most:
                try:
                    session = self._kind.from_transport(self._client.get_transport())
                except Exception:  # the server has a limit
                    self._n_most = self._n_open
                    if not self._n_open:
                        raise
                else:
                    session.get_channel().settimeout(_READ_S)
                    self._n_open += 1
                    return session
        return self._free.get(timeout=_SESSION_S)


def _sftp_session_class() -> Any:
    paramiko = import_module("paramiko")

    class Session(paramiko.SFTPClient):  # type: ignore[misc, name-defined]
        """A session that takes names which are no UTF-8; paramiko lists none of such a folder."""

        def _request(self, kind: Any, *args: Any) -> Any:
            kind, message = super()._request(kind, *args)

            def text() -> str:
                return str(message.get_string().decode("utf-8", "surrogateescape"))

            message.get_text = text
            return kind, message

        def entries(self, folder: str) -> list[Mapping[str, Any]]:
            found = list[Mapping[str, Any]]()
            for entry in self.listdir_attr(_path_bytes(folder)):
                if entry.st_mode is None:
                    raise SourceRefused("does not say which of its entries are files")
                is_folder, is_file = stat.S_ISDIR(entry.st_mode), stat.S_ISREG(entry.st_mode)
                kind = "directory" if is_folder else "file" if is_file else "link"
                changed = datetime.fromtimestamp(entry.st_mtime, UTC) if entry.st_mtime else None
                facts = {"size": entry.st_size, "mtime": changed}  # as fsspec writes it
                found.append({"name": folder + entry.filename, "type": kind, **facts})
            return found

        def content(self, path: str, most_bytes: int) -> bytes:
            with self.open(_path_bytes(path), "rb") as file:
                content = bytes(file.read(most_bytes + 1))
                size = file.stat().st_size
            if len(content) <= most_bytes and size not in (None, len(content)):
                raise SourceRefused(f"it changes: {len(content):,} bytes of {size:,} came")
            return content

    return Session


def _path_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with ours where none are given, also within those that have several."""
    options = {**_defaults(kind), **(_signing(given) if kind == "s3" else {})}
    for name, value in given.items():
        own: Any = options.get(name)
        both = isinstance(own, dict) and isinstance(value, Mapping)
        options[name] = {**own, **value} if both else value
    return options


def _signing(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how requests to S3 are signed: by the key that is given, or not at all."""
    client: Any = given.get("client_kwargs")
    all_given = {**client, **given} if isinstance(client, Mapping) else given
    keys = {name: all_given[name] for name in _KEYS if name in all_given}
    if empty := [name for name, value in keys.items() if not value]:
        raise SourceRefused(f"is given an empty `{empty[0]}`", "Give the key in `options`.")
    if keys and given.get("anon"):
        raise SourceRefused("is given a key, and `anon`", "Remove one of them.")
    if keys and not all(any(name in keys for name in pair) for pair in (_IDS, _SECRETS)):
        raise SourceRefused("is given a half of a key", "Give `key` and `secret`.")
    return {"anon": not keys and not {"profile", "session"} & given.keys()}


def _defaults(kind: str) -> dict[str, Any]:
    """Return options that use no secret of this machine which the pipeline does not name."""
    if kind == "s3":
        # Also without what AWS_ENDPOINT_URL and FSSPEC_S3_… name
        limits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S}
        config = {**limits, "max_pool_connections": _N_OBJECTS}
        config["ignore_configured_endpoint_urls"] = True
        names = ("key", "secret", "token", "username", "password", "endpoint_url")
        unset = dict.fromkeys(names)
        return {**unset, "client_kwargs": {}, "config_kwargs": config, "use_listings_cache": False}
    if kind == "sftp":
        limits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _CONNECT_S)
        own = dict.fromkeys(("look_for_keys", "allow_agent"), False)
        unset = dict.fromkeys(("username", "password", "key_filename", "pkey", "passphrase"))
        return {**unset, **limits, **own, "host_key_policy": _known_hosts_policy()}

    async def refuse_redirect(answer: Any) -> None:  # to another server
        if 300 <= answer.status < 400:
            raise SourceRefused(f"redirects to {answer.headers.get('Location')}", "Write that.")

    client = {"raise_for_status": refuse_redirect}
    return {"client_kwargs": client, "headers": {}, "allow_redirects": False}


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
