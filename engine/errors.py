"""Exceptions of the engine: models, memory, workers, deadlines.

Each error carries its data, so that callers decide by type and field, never by text. Between
processes they travel as `pack_error` writes them, by the names of their classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from paddock.engine.system.text import shell_command, shorten


class EngineError(Exception):
    """The machine could not do it: base of every error that the engine raises."""


class WrongModel(EngineError):
    """A model that cannot be used as it is named; other errors are the machine's or a server's."""

    what, remedy = "", ""  # of what a server of another version reports, there is only the text

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what}. {remedy}" if remedy else what)


class ModelNotFound(WrongModel):
    """No model of this name is in the store, in an installed package, or bundled."""

    def __init__(self, ref: str, known: Sequence[str]) -> None:
        self.ref, self.known = ref, tuple(known)
        names = ", ".join(repr(name) for name in self.known) or "none"
        pull = shell_command("paddock", "pull", ref)
        bring = f"Bring it with `{pull}`, or name the path of a GGUF file."
        super().__init__(f"model '{ref}' is not on this machine", f"Known: {names}. {bring}")


class NoModelFile(ModelNotFound):
    def __init__(self, ref: str) -> None:
        self.ref, self.known = ref, ()
        WrongModel.__init__(self, f"no such file: '{ref}'.")


class NotInStore(ModelNotFound):
    """A model comes with a package, or is bundled: the store cannot remove it."""

    def __init__(self, ref: str, path: str) -> None:
        self.ref = ref
        self.known = ()
        self.path = path
        why = f"model '{ref}' is not in the store, but in {path}: remove it there"
        WrongModel.__init__(self, why)


class NotServed(ModelNotFound):
    def __init__(self, ref: str, known: Sequence[str], url: str) -> None:
        self.ref = ref
        self.known = tuple(known)
        self.url = url
        names = ", ".join(repr(name) for name in self.known[:20]) or "none"
        remedy = f"It has: {names}. Write one of them as the model's `ref`."
        WrongModel.__init__(self, f"the server at {url} has no model '{ref}'", remedy)


class ModelBroken(WrongModel):
    """A model file that cannot be used, with its path and the reason."""

    def __init__(self, path: str, why: str, remedy: str = "") -> None:
        self.path, self.why = path, f"{why}. {remedy}" if remedy else why
        super().__init__(f"{path}: {why}", remedy)


class NotGguf(ModelBroken):
    """A file that is none of GGUF, nor of a format that its first bytes name."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "this is not a GGUF file")


class ToolsRefused(ModelBroken):
    """A server takes requests for a model, but none with tools."""


class ModelReplaced(EngineError):
    """A model that is another one than it was when the work that names it began."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        super().__init__(
            f"model '{ref}' was replaced while this run was at work with it. What it did with the "
            f"old one is recorded; the same command goes on with the new one."
        )


class ModelTooLarge(EngineError):
    """A model that does not fit into memory, with both numbers.

    `device`: the graphics devices that lack it, empty where main memory does; `holders`: bytes
    there of each model that stays, and under "" of other programs.
    """

    def __init__(
        self, ref: str, needed_bytes: int, free_bytes: int, device: str = "",
        holders: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.ref, self.needed_bytes, self.free_bytes = ref, needed_bytes, free_bytes
        self.device, self.holders = device, dict(holders)
        holders_text = ", ".join(
            f"model '{name}' holds {_mib(n_bytes)}" if name else f"others hold {_mib(n_bytes)}"
            for name, n_bytes in self.holders.items()
        )
        where, there = (f" on {device}", f" there ({holders_text})") if device else ("", "")
        super().__init__(
            f"model '{ref}' needs about {_mib(needed_bytes)} with its context{where}, and "
            f"{_mib(free_bytes)} are free{there}. "
            f"Use a smaller model or a smaller `ctx`{_BY_PROCESSOR if device else ''}."
        )


_BY_PROCESSOR = (
    ", or let the processor compute what does not fit (PADDOCK_ALLOW_CPU=1) or all of it "
    "(PADDOCK_NUM_GPU=0, or `num_gpu: 0` among a request's options)"
)


def _mib(n_bytes: int) -> str:
    return f"{n_bytes // 1024**2} MiB"


class WrongRole(EngineError):
    """Something was asked of a model that does something else, such as a chat of an embedder."""

    def __init__(
        self, ref: str, requested: Literal["chat", "embed", "rerank"], role: str | None = None
    ) -> None:
        self.ref, self.asked = ref, requested  # `asked` is its name on the wire
        self.hint = ""
        if role == "rerank":
            self.hint = ": it is a reranker, which scores documents (POST /v1/rerank)"
        super().__init__(f'"{ref}" does not support {requested}{self.hint}')


class PromptTooLong(EngineError):
    """A prompt that, with the answer reserved for it, exceeds the context; nothing was cut."""

    def __init__(self, n_prompt_tokens: int, n_reserved_tokens: int, n_ctx_tokens: int) -> None:
        self.n_prompt_tokens = n_prompt_tokens
        self.n_reserved_tokens = n_reserved_tokens
        self.n_ctx_tokens = n_ctx_tokens
        super().__init__(
            f"the prompt has {n_prompt_tokens} tokens and {n_reserved_tokens} are reserved for "
            f"the answer, but the context holds {n_ctx_tokens}; nothing was cut"
        )


class TextTooLong(EngineError):
    """A text that an embedding model cannot take whole; nothing was cut."""

    def __init__(self, index: int, n_tokens: int, n_ctx_tokens: int) -> None:
        self.index, self.n_tokens, self.n_ctx_tokens = index, n_tokens, n_ctx_tokens
        super().__init__(
            f"text {index} has {n_tokens} tokens, but the model reads at most {n_ctx_tokens}; "
            f"nothing was cut"
        )


class BadRequest(EngineError):
    """A request that this model can never answer as it stands (a template that refuses it)."""


class ConstraintRefused(BadRequest):
    """What an answer must match cannot be enforced, or costs too much to find out."""


class NoPlace(EngineError):
    """Memory would do for a model, but pinned ones take every place."""

    def __init__(self, ref: str, pinned: Sequence[str], limit: int) -> None:
        self.ref = ref
        self.pinned = tuple(pinned)
        self.limit = limit
        names = ", ".join(repr(name) for name in self.pinned)
        super().__init__(
            f"model '{ref}' has no place: {names} are pinned and max_loaded_models is {limit}. "
            f"Raise it, or pin fewer."
        )


class AdapterBroken(EngineError):
    """A LoRA adapter that cannot be laid over a model, with its path and the reason."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"adapter {path}: {why}")


class NoInsert(BadRequest):
    """A text to go in between two was asked of a model that was not trained for it."""

    def __init__(self) -> None:
        super().__init__("this model cannot fill in the middle: its file names no tokens for it")


class TemplateTooLarge(BadRequest):
    """A chat template is longer, or nested more deeply, than templates may be."""


class TemplateUnreadable(BadRequest):
    """A chat template that cannot be parsed."""


class TextRefused(BadRequest):
    """A text that cannot have a vector, by its index, and why."""

    def __init__(self, index: int, why: str) -> None:
        self.index, self.why = index, why
        super().__init__(f"text {index} {why}")


class Busy(EngineError):
    """The queue is full, or the machine is busy; try again later."""

    @classmethod
    def of(cls, ref: str, n_waiting: int) -> Busy:
        return cls(f"model '{ref}' is busy: {n_waiting} requests wait already. Try again later.")


class TrialTimeout(Busy):
    """What others wrote could not be computed in time.

    `is_costly`: a usual one needs 1 to 15 ms; else only the machine is busy, or short of memory.
    """

    is_costly = False

    def __init__(
        self, name: str, within_s: float, remedy: str = "", processor_s: float = 0.0
    ) -> None:
        self.is_costly = processor_s > 0.1
        why = "the machine is busy, or short of memory"
        if self.is_costly:
            why = f"it took {processor_s:.1f} s of a busy processor"
        what = f"{name} could not be computed within {within_s:.3g} s: {why}"
        super().__init__(f"{what}. Try again later. {remedy}".rstrip())


class DeadlineExceeded(EngineError):
    """`total` or `idle` time is up."""

    def __init__(self, kind: Literal["total", "idle"], seconds: float) -> None:
        self.kind, self.seconds = kind, seconds
        what = "no answer" if kind == "total" else "no new token"
        super().__init__(f"{what} within {seconds:g} s (timeout.{kind})")


class WorkerLost(EngineError):
    """The worker process died with this request in it, too often to try again."""

    def __init__(self, ref: str, reason: str) -> None:
        self.ref, self.reason = ref, reason
        super().__init__(f"the worker of model '{ref}' died: {reason}")


class ModelUnusable(EngineError):
    """llama.cpp crashes with this model on this machine, whatever it goes without."""

    def __init__(self, ref: str, reason: str, remedy: str) -> None:
        self.ref, self.reason, self.remedy = ref, reason, remedy
        super().__init__(
            f"model '{ref}' cannot be used on this machine: its worker was {reason}. "
            f"This builds llama.cpp again: {remedy}"
        )


class ServerLost(WorkerLost):
    """A server elsewhere went away with this request in it, too often to try again."""

    def __init__(self, ref: str, reason: str) -> None:
        self.ref, self.reason = ref, reason
        EngineError.__init__(self, f"no server answered for model '{ref}': {reason}")


class NoServer(EngineError):
    """None of a model's servers can be reached, or all fail, and none came back in time."""

    def __init__(self, ref: str, reason: str, waited_s: float, *, is_failing: bool = False) -> None:
        """`is_failing`: the servers answer, but by errors of their own."""
        self.ref, self.reason, self.waited_s = ref, reason, waited_s
        self.is_failing = is_failing
        waited = f", waited {waited_s:g} s" if waited_s else ""
        what, remedy = "no server can be reached", "Start one, or correct the address"
        if is_failing:
            what, remedy = "no server works", "Its log says why"
        super().__init__(
            f"{what} for model '{ref}': {reason}{waited}. {remedy}; the same command goes on."
        )


class ServersFull(NoServer):
    """A model's servers refused a request for long, and served no other meanwhile."""

    def __init__(self, ref: str, reason: str, waited_s: float) -> None:
        super().__init__(ref, reason, waited_s)
        self.args = (
            f"the servers of model '{ref}' took no request for {waited_s:g} s: {reason}. "
            f"Free one, or start another; the same command goes on.",
        )


class PromptCut(EngineError):
    """A server read less of a prompt than it was sent, and reported no error."""

    def __init__(
        self,
        url: str,
        n_read_tokens: int,
        n_sent_tokens: int,
        *,
        is_probe: bool = False,
        is_servers_fault: bool = False,
    ) -> None:
        """`is_servers_fault`: it cuts any text of this length, as a probe has shown."""
        self.url, self.n_read_tokens, self.n_sent_tokens = url, n_read_tokens, n_sent_tokens
        self.is_servers_fault = is_servers_fault or is_probe
        what = f"a prompt of at least {n_sent_tokens}"
        if is_probe:
            what = f"a probe of {n_sent_tokens}, which is as long as this prompt may be"
        super().__init__(
            f"the server at {url} read {n_read_tokens} tokens of {what}: it cuts what is longer "
            f"and reports no error. Set the model's `ctx` to what the server really has, or raise "
            f"the server's context."
        )


class InvalidName(WrongModel):
    """A model's name that cannot be one, and what is wrong with it."""

    def __init__(self, text: str, why: str) -> None:
        self.text, self.why = text, why
        super().__init__(
            f"invalid model name {shorten(text, 101)!r}: {why}",
            "Names are [host/][namespace/]model[:tag], of letters, digits, '_', '-' and '.'.",
        )


class BadDigest(EngineError):
    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__("invalid digest format")


class DigestMismatch(EngineError):
    """What arrived is not what its digest says; nothing of it was kept."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected, self.got = expected, got
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"')


class StoreFull(EngineError):
    """No room for a blob on the store's disk (or within a limit of it); nothing half was left."""

    def __init__(self, path: str, free_bytes: int) -> None:
        self.path, self.free_bytes = path, free_bytes
        super().__init__(
            f"no room left in {path} ({free_bytes // 10**6} MB free); nothing half was kept. "
            f"Make room, or set PADDOCK_MODELS to another disk."
        )


class StoreReadOnly(EngineError):
    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"{path} cannot be written: {why}. Set PADDOCK_MODELS to a folder that can."
        )


class ManifestBroken(ModelBroken):
    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, f"{why}. Pull or create the model again.")


class BlobMissing(EngineError):
    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"blob {digest} is not in the store. Pull or create its model again.")


class RecipeRefused(BadRequest):
    """A model cannot be made as it was asked for; nothing was made."""


def pack_error(error: Exception) -> dict[str, Any]:
    known = next(
        (kind for kind in type(error).__mro__ if _error_class(kind.__name__) is kind), None
    )
    if known is None:
        text = f"the pool met an error of its own: {type(error).__name__}: {error}"
        return {"kind": EngineError.__name__, "text": text, "data": {}}
    return {"kind": known.__name__, "text": str(error), "data": dict(vars(error))}


def read_error(fields: Mapping[str, Any]) -> EngineError:
    kind = _error_class(str(fields["kind"])) or EngineError
    error = kind.__new__(kind)
    error.args = (str(fields["text"]),)
    for name, value in fields["data"].items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


def _error_class(name: str) -> type[EngineError] | None:
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, EngineError) else None
