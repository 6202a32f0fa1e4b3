"""What can go wrong on the way from or to another machine. Each says what can be done."""

from __future__ import annotations

from collections.abc import Sequence

from paddock.engine.errors import EngineError, StoreFull


class TransferError(EngineError):
    """A pull or a push that could not be done."""


class NotPublished(TransferError):
    """The other side has no such model, file or blob."""

    def __init__(self, what: str, advice: str = "") -> None:
        self.what = what
        super().__init__(f"{what}: file does not exist{f'. {advice}' if advice else ''}")


class Unreachable(TransferError):
    """No connection to a host could be made at all."""

    def __init__(self, host: str, why: str, advice: str = "") -> None:
        self.host = host
        self.why = why
        self.advice = advice or BEHIND_A_PROXY
        super().__init__(f"{host} cannot be reached: {why}. {self.advice}")


BEHIND_A_PROXY = "Behind a proxy, set HTTPS_PROXY."
WITHOUT_A_NETWORK = (
    "Behind a proxy, set HTTPS_PROXY; without a network, bring the GGUF file here and "
    "`paddock pull ./file.gguf`."
)
SPEAKS_NO_TLS = 'Say `--insecure` (`"insecure": true`) if you trust every machine on the way.'


class Interrupted(TransferError):
    """Connections were made and cut, or stood still, too often; what arrived is kept."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        self.why = why
        super().__init__(
            f"the connection to {host} broke off too often: {why}. "
            f"Do it again, and it goes on from where it stopped."
        )


class Refused(TransferError):
    """The other side answered, and said no."""

    def __init__(self, host: str, status: int, said: str, advice: str | None = None) -> None:
        self.host = host
        self.status = status
        self.said = said
        way_out = _advice(status) if advice is None else advice
        super().__init__(
            ". ".join(filter(None, (f"{host} answered {status}{_after(said)}", way_out)))
        )


class HostNotTrusted(TransferError):
    """A host that the settings do not name."""

    def __init__(self, host: str, trusted: Sequence[str]) -> None:
        self.host = host
        self.trusted = tuple(trusted)
        super().__init__(
            f"{host} is not among the trusted hosts ({', '.join(self.trusted)}). "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class NotEncrypted(TransferError):
    """Plain http, without leave."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"insecure protocol http: {url} is not encrypted. Say `--insecure` "
            f'(`"insecure": true`) if you trust every machine on the way.'
        )


class LeadsInside(TransferError):
    """A public server names one of a private network, where nothing is to be had for it."""

    def __init__(self, before: str, host: str) -> None:
        self.before = before
        self.host = host
        super().__init__(
            f"{before} leads to {host}, which is this machine or in a private network. "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class ProxyBroken(TransferError):
    """The environment names a proxy that cannot be used."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"a proxy that the environment names cannot be used: {why}. "
            f"Look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; http:// and https:// proxies work."
        )


class Unusable(TransferError):
    """Something was found that is no model for llama.cpp, and why."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


class SourceChanged(TransferError):
    """A file changed while it was brought, so its parts do not belong together."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"{url} changed while it was downloaded. Do it again.")


class NotEnoughRoom(StoreFull):
    """The disk has less room than a model needs; nothing was begun."""

    def __init__(self, path: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.needed_bytes = needed_bytes
        self.args = (
            f"{path} has {free_bytes / 1e9:.1f} GB free, and {needed_bytes / 1e9:.1f} GB are to "
            f"come. Make room, or set PADDOCK_MODELS to another disk.",
        )


class RanFull(StoreFull):
    """The disk was full in the middle; what arrived is kept for when there is room."""

    def __init__(self, path: str, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.args = (
            f"no room left in {path} ({free_bytes / 1e9:.1f} GB free). What arrived is kept: "
            f"make room and do it again, or set PADDOCK_MODELS to another disk.",
        )


def _after(said: str) -> str:
    return f": {said.rstrip('.')}" if said else ""


def _advice(status: int) -> str:
    if status in (401, 403):
        return (
            "It wants to know who asks: `docker login` or `podman login` to that host, and see "
            "that you may read or write this model."
        )
    return "It was asked too often; wait a while." if status == 429 else ""
