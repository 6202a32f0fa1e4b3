"""API keys: the key file, and the middleware that requires a key.

A file holds one key per line, in plain text or as `sha256:` and its hexadecimal hash; a name for
the access log may follow after a space, and `#` begins a comment. Changes of the file apply within
a second, without a restart. Keys are kept as hashes and compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import shlex
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog, exchange_of
from paddock.engine.errors import EngineError
from paddock.engine.system.files import content_stamp, read_text
from paddock.engine.system.key_proof import PROOF_PATH
from paddock.engine.system.records import Struct

log = logging.getLogger(__name__)

_HASHED_KEY = re.compile(r"sha256:([0-9a-fA-F]{64})")
_CHECK_S = 1.0
# The name of a key is a word of the access log.
_KEY_NAME = re.compile(r"[\w.@+-]{1,64}")

_IN_SCOPE = "paddock.key"

# Monitors, load balancers and clients that look for a server have no key. The console's pages take
# a session in place of one, and refuse what has neither.
_PATHS_WITHOUT_KEY = frozenset(["/", "/healthz", "/readyz", "/ui", "/review", PROOF_PATH])
STATE_PATH = "/ui/state.json"


class InvalidKeyFile(EngineError):
    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}\n  {remedy}")


class ApiKey(Struct, frozen=True):
    digest: bytes
    """SHA-256 of the key's UTF-8."""
    name: str


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file.

    Raises:
        InvalidKeyFile: it cannot be read, holds no key, or has an invalid line.
    """
    try:
        text = read_text(file)
    except UnicodeDecodeError:
        raise InvalidKeyFile(
            str(file), "this is not text.", "Write one key in each line."
        ) from None
    except OSError as error:
        problem = f"the keys cannot be read: {error.strerror}."
        raise InvalidKeyFile(str(file), problem, f"Make them: {key_command(file)}") from None
    keys = tuple(_parse_keys(file, text))
    if not keys:
        raise InvalidKeyFile(str(file), "there is no key in it.", f"Make one: {key_command(file)}")
    return keys


def key_command(file: Path) -> str:
    """Return a shell command that adds a new key to a file that only its owner can read."""
    return f"(umask 077; openssl rand -hex 24 >> {shlex.quote(str(file))})"


def _parse_keys(file: Path, text: str) -> Iterator[ApiKey]:
    for number, line in enumerate(text.splitlines(), start=1):
        written, *words = line.partition("#")[0].split()[:3] or [""]
        if not written:
            continue
        hashed = _HASHED_KEY.fullmatch(written)
        if written.startswith("sha256:") and not hashed:
            problem = "'sha256:' is not followed by 64 hexadecimal digits."
            remedy = "Hash a key by `printf %s KEY | sha256sum`."
            raise InvalidKeyFile(f"{file}:{number}", problem, remedy)
        if len(words) > 1 or (words and not _KEY_NAME.fullmatch(words[0])):
            problem = "what follows the key is not a name."
            raise InvalidKeyFile(f"{file}:{number}", problem, "Write a key, a space, and one word.")
        digest = bytes.fromhex(hashed.group(1)) if hashed else digest_of(written.encode())
        yield ApiKey(digest, words[0] if words else f"key-{digest.hex()[:8]}")


def digest_of(key: bytes) -> bytes:
    """Hash a key. Keys are long and random, so a slow hash would protect nothing."""
    return hashlib.sha256(key).digest()


class KeyRing:
    """The keys of a file, read again when it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._checked_at = 0.0
        self._seen: object = None
        self._keys: tuple[ApiKey, ...] = ()

    def find(self, key: bytes) -> ApiKey | None:
        """Return the known key, or None; takes equally long for every unknown key."""
        self._refresh()
        digest = digest_of(key)
        found = None
        for known in self._keys:
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def digests(self) -> tuple[bytes, ...]:
        self._refresh()
        return tuple(key.digest for key in self._keys)

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._seen is not None and now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        try:
            seen: object = content_stamp(self._file.stat())
        except OSError as error:
            seen = error.errno or "missing"
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = read_keys(self._file)
        except InvalidKeyFile as error:
            # Refuse everyone rather than accept a key that was removed.
            self._keys = ()
            log.error("no API key is valid until this is corrected: %s", error)  # noqa: TRY400


class KeyCheck(RefusingMiddleware):
    """Answers 401 to requests without a known key, but for pages and health checks."""

    def __init__(self, app: ASGIApp, *, ring: KeyRing, request_log: RequestLog) -> None:
        super().__init__(app, request_log=request_log)
        self._ring = ring

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = given_keys(Headers(scope=scope))
        key = next(filter(None, map(self._ring.find, given)), None)
        path: str = scope["path"]
        has_session = path.startswith(("/ui/", "/review/")) and path != STATE_PATH
        needs_key = path not in _PATHS_WITHOUT_KEY and (bool(given) or not has_session)
        if key is None and needs_key:
            message = "this API key is not known" if given else (
                "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            )  # fmt: skip
            challenge = {"WWW-Authenticate": 'Bearer realm="paddock"'}
            error = ApiError(401, message, challenge, code="invalid_api_key")
            return await self._refuse("key", error, scope, receive, send)
        exchange = exchange_of(scope)
        if key is not None:
            scope[_IN_SCOPE] = key.name
            if exchange is not None:
                exchange.key = key.name
        await self._app(scope, receive, send)


def key_name_of(scope: MutableMapping[str, Any]) -> str:
    """Return the name of a request's key; empty where it needed none."""
    return str(scope.get(_IN_SCOPE, ""))


def given_keys(headers: Headers) -> tuple[bytes, ...]:
    """Return the keys in a request's headers, without empty ones.

    >>> given_keys(Headers({"authorization": "bearer abc", "x-api-key": "def"}))
    (b'abc', b'def')
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    named = (bearer, headers.get("x-api-key", "").strip())
    return tuple(key.encode("latin-1") for key in named if key)
