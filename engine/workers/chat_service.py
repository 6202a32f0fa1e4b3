"""Chats inside a worker: requests in from the reading thread, answers out of the owner thread.

A new constraint is compiled in a thread of its own: neither answers nor other requests wait for
it.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paddock.engine.chat.prompt_builder import BuiltPrompt, PromptBuilder, answer_limit_tokens
from paddock.engine.decoding.batch import MOST_SEQ_IDS
from paddock.engine.decoding.drafts import DraftModel
from paddock.engine.decoding.kv_cache import CacheOptions, KvCache
from paddock.engine.decoding.loop import CancelRequest, DecodeLoop, Shutdown, WidenContext
from paddock.engine.decoding.running_request import DecodeRequest, StepOutput, text_tokens
from paddock.engine.decoding.scheduler import StepSizer
from paddock.engine.errors import BadRequest, EngineError, PromptTooLong
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.profile.context_layout import n_chat_slots
from paddock.engine.profile.profile import Profile
from paddock.engine.request import ChatRequest, Constraint, Sampling
from paddock.engine.sampling.constraint import GrammarCompiler, TokenMatcher
from paddock.engine.sampling.picker import Picker

from . import worker_protocol
from .worker_options import WorkerOptions
from .worker_protocol import FrameHead

Send = Callable[[FrameHead], None]

# Each frame wakes the pool's process, which takes a core from the threads that compute: 0.7 ms of
# a small model's 8 ms a token. What jobs say goes out so often at most; what is read as it comes,
# as often as a screen shows it, but never later than the step after, if steps are slow.
HOLD_S, READ_HOLD_S = 0.05, 0.02

N_COMPILERS = 2
COMPILER_STACK_BYTES = 16 * 1024 * 1024
"""More than where a constraint was tried: what passed there cannot end a worker."""

_CompileKey = tuple[Constraint, Constraint | None]
"""What an answer must match, and what the request asked for, of which that was made."""

# An answer whose history shifts may be as long as so many contexts, as in Ollama.
MOST_SHIFTED_CONTEXTS = 10


class OutputBuffer:
    """Turns that wait to be sent together in one frame."""

    def __init__(self) -> None:
        self._turns: list[tuple[float, FrameHead]] = []
        self._is_read = False
        """Whether one of them has something that is read as it comes."""

    def add(self, told: StepOutput, now: float) -> list[FrameHead]:
        """Add a turn; return those that are to be sent now, each with its age in seconds."""
        self._turns.append((now, told.as_head()))
        self._is_read |= told.is_read
        hold_s = READ_HOLD_S if self._is_read else HOLD_S
        # The next turn can only be sent when its step has ended.
        if not told.is_urgent and now + told.step_s - self._turns[0][0] < hold_s:
            return []
        turns = [{**head, "age_s": now - at} for at, head in self._turns]
        self._turns.clear()
        self._is_read = False
        return turns


class ChatService:
    """Serves one model. `take` runs in the reading thread, `run` in the owner thread."""

    def __init__(
        self,
        model: Model,
        prompter: PromptBuilder,
        load: WorkerOptions,
        profile: Profile | None,
        send: Send,
        pace: StepSizer | None = None,
    ) -> None:
        self._model = model
        self._prompter = prompter
        self._grammars = GrammarCompiler(model)
        self._load = load
        self._send = send
        self._compiling: dict[
            _CompileKey, list[tuple[int, worker_protocol.ChatOrder, BuiltPrompt]]
        ] = {}
        """Who waits for which constraint to be compiled."""
        self._compiling_lock = threading.Lock()
        self._wishes: queue.SimpleQueue[_CompileKey] = queue.SimpleQueue()
        self._has_compilers = False
        self._held = OutputBuffer()
        self._cache = KvCache(model, _cache_options(load), profile)
        self._told_context = self._cache.context
        self._draft_model = _load_draft_model(load, model) if load.draft_path else None
        self._loop = DecodeLoop(
            self._cache,
            self._tell,
            self._tell_widened,
            self._tell_refused,
            self._draft_model,
            pace,
        )

    def run(self) -> None:
        """Work until `close` is called.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        self._loop.run()

    def close(self) -> None:
        """End the work after the present step."""
        self._loop.post(Shutdown())

    def memory(self) -> FrameHead:
        """Return the memory that the model takes with its context as it is now."""
        context = self._cache.context.buffers
        everything = self._model.buffers + context
        if self._draft_model is not None:
            everything += self._draft_model.buffers
        head = everything.as_head(
            context.cells, self._cache.limits.n_cells, self._cache.n_cells_at_most
        )
        if self._load.projector and self._load.is_gpu and self._load.n_gpu_layers:
            head["device_bytes"] += Path(self._load.projector).stat().st_size
        return head

    def take(self, head: FrameHead, body: bytes) -> None:
        """Take a chat, or the end of one.

        Raises:
            EngineError: it cannot be served; nothing was queued.
        """
        if head["op"] == "cancel":
            if not self._leave(head["id"]):
                self._loop.post(CancelRequest(head["id"]))
        elif head["op"] == "widen":
            n_ctx_tokens = max(head["n_ctx_tokens"], self._load.n_ctx_tokens)
            self._load = replace(self._load, n_ctx_tokens=n_ctx_tokens)
            self._loop.post(WidenContext(head["id"], head["n_ctx_tokens"], head["n_cells"]))
        else:
            self._take_chat(head["id"], worker_protocol.read_chat(head, body))

    def _take_chat(self, request_id: int, order: worker_protocol.ChatOrder) -> None:
        """Render and tokenise a request; post it, or let it wait for its constraint."""
        n_ctx_tokens = min(order.n_ctx_tokens, self._load.n_ctx_tokens)
        prompted = self._prompter.chat(order.request, _without_stop_strings(order), n_ctx_tokens)
        _answer_budget(
            prompted, order, n_ctx_tokens
        )  # too long is said before anything is compiled
        if prompted.constraint is None:
            self._loop.post(self._job(request_id, order, prompted, None))
            return
        matcher = self._grammars.known(prompted.constraint)
        if matcher is not None:
            self._loop.post(self._job(request_id, order, prompted, matcher))
        else:
            self._compile_for(request_id, order, prompted, prompted.constraint)

    # Constraints that are new

    def _compile_for(
        self,
        request_id: int,
        order: worker_protocol.ChatOrder,
        prompted: BuiltPrompt,
        constraint: Constraint,
    ) -> None:
        """Let a request wait until its constraint is compiled."""
        wish = (constraint, order.request.constraint)
        with self._compiling_lock:
            waiting = self._compiling.get(wish)
            if waiting is not None:
                waiting.append((request_id, order, prompted))
                return
            self._compiling[wish] = [(request_id, order, prompted)]
        self._start_compilers()
        self._wishes.put(wish)

    def _start_compilers(self) -> None:
        if self._has_compilers:
            return
        self._has_compilers = True
        usual_bytes = threading.stack_size(COMPILER_STACK_BYTES)
        try:
            for number in range(N_COMPILERS):
                name = f"compiler {number}"
                threading.Thread(target=self._compile_all, name=name, daemon=True).start()
        finally:
            threading.stack_size(usual_bytes)

    def _compile_all(self) -> None:
        """Compile what is wished for, in a thread of its own, until the process ends."""
        while True:
            wish = self._wishes.get()
            made: TokenMatcher | EngineError
            try:
                made = self._grammars.matcher(*wish)
            except EngineError as error:
                made = error
            except BaseException:  # a panic of Rust, too: its requests must not wait for ever
                traceback.print_exc()
                made = BadRequest("the schema or grammar cannot be used")
            self._end_wish(wish, made)
            self._send({"event": "alive", "for_s": 0})  # those who wait for it make no steps

    def _end_wish(self, wish: _CompileKey, made: TokenMatcher | EngineError) -> None:
        with self._compiling_lock:  # nobody leaves between here and the loop
            for request_id, order, prompted in self._compiling.pop(wish):
                if isinstance(made, EngineError):
                    self._send(worker_protocol.pack_refusal(request_id, made))
                    continue
                try:
                    job = self._job(request_id, order, prompted, made.copy())
                except EngineError as error:
                    self._send(worker_protocol.pack_refusal(request_id, error))
                else:
                    self._loop.post(job)

    def _leave(self, request_id: int) -> bool:
        """Forget a request that waits for its constraint; False: it does not."""
        with self._compiling_lock:
            for waiting in self._compiling.values():
                for one in waiting:
                    if one[0] == request_id:
                        waiting.remove(one)
                        return True
        return False

    def _job(
        self,
        request_id: int,
        order: worker_protocol.ChatOrder,
        prompted: BuiltPrompt,
        matcher: TokenMatcher | None,
    ) -> DecodeRequest:
        """Count a request's tokens and make ready how its answer is chosen."""
        request, n_ctx_tokens = order.request, min(order.n_ctx_tokens, self._load.n_ctx_tokens)
        budget = _answer_budget(prompted, order, n_ctx_tokens)
        shifts = bool(request.shifts) and not prompted.images
        if shifts:
            most, asked = n_ctx_tokens * MOST_SHIFTED_CONTEXTS, order.sampling.max_tokens or 0
            budget = min(asked, most) if asked > 0 else most
        picker = Picker(
            order.sampling,
            text_tokens(prompted.tokens),
            self._model,
            matcher=matcher,
            max_tokens=budget,
            n_logprobs=request.n_logprobs,
        )
        if prompted.n_original is not None:  # told before the first token is
            told = {"event": "shortened", "id": request_id, "n_tokens": prompted.n_original}
            self._send(told)
        return DecodeRequest(
            request_id,
            prompted.tokens,
            budget,
            request.priority,
            picker,
            prompted.parser,
            prompted.visible_tokens,
            False if prompted.images or shifts else request.drafts,
            images=prompted.images,
            shift_at=n_ctx_tokens if shifts else 0,
            n_keep_tokens=self._n_keep(request, prompted) if shifts else 0,
            is_open=not request.reserves_answer,
            wants_tokens=request.wants_tokens,
        )

    @staticmethod
    def _n_keep(request: ChatRequest, prompted: BuiltPrompt) -> int:
        """Return how many tokens stay at the beginning of a shifted history."""
        n = request.n_keep_tokens
        return len(prompted.tokens) if n < 0 else n + 1  # one for the beginning's own token

    def _tell(self, told: StepOutput) -> None:
        if self._cache.context is not self._told_context:  # another one was made
            self._told_context = self._cache.context
            self._send({"event": "memory", "memory": self.memory()})
        for chunk in told.chunks:
            if "logprobs" in chunk:
                chunk["logprobs"] = [worker_protocol.pack_logprob(one) for one in chunk["logprobs"]]
        turns = self._held.add(told, time.monotonic())
        if turns:
            self._send({"event": "turns", "turns": turns})

    def _tell_widened(self, request_id: int) -> None:
        self._send({"event": "widened", "id": request_id})

    def _tell_refused(self, request_id: int, error: EngineError) -> None:
        self._send(worker_protocol.pack_refusal(request_id, error))


def _answer_budget(
    prompted: BuiltPrompt, order: worker_protocol.ChatOrder, n_ctx_tokens: int
) -> int:
    """Return how long an answer may get.

    Raises:
        PromptTooLong: with what the whole prompt had, where shortening it was not enough.
    """
    reserves = order.request.reserves_answer
    max_tokens = order.sampling.max_tokens
    try:
        return answer_limit_tokens(
            len(prompted.tokens), max_tokens, n_ctx_tokens, reserves=reserves
        )
    except PromptTooLong as error:
        n_prompt = prompted.n_original or error.n_prompt_tokens
        raise PromptTooLong(n_prompt, error.n_reserved_tokens, n_ctx_tokens) from None


def _load_draft_model(load: WorkerOptions, model: Model) -> DraftModel:
    """Load the smaller model, in a context with a sequence for each that runs in the larger one.

    Raises:
        LoadFailed: it cannot be loaded, or cannot guess for this model.
    """
    small = Model(
        Path(load.draft_path),
        n_gpu_layers=load.n_gpu_layers,
        main_gpu=load.main_gpu,
        uses_extra_buffers=load.uses_extra_buffers,
    )
    n_seats = min(load.n_parallel + n_chat_slots(load.n_parallel), MOST_SEQ_IDS)
    return DraftModel(small, model, replace(_cache_options(load).options, n_seq_max=n_seats))


def _without_stop_strings(order: worker_protocol.ChatOrder) -> Sampling:
    """Leave out stop strings where JSON is asked for: one within a text would break it."""
    constraint = order.request.constraint
    if constraint is None or constraint.kind not in ("json", "json_schema"):
        return order.sampling
    return replace(order.sampling, stop=())


def _cache_options(load: WorkerOptions) -> CacheOptions:
    options = ContextOptions(
        n_ctx_tokens=load.n_cells,
        n_batch_tokens=load.n_batch_tokens,
        n_pass_tokens=load.n_pass_tokens,
        n_seq_max=load.n_parallel,
        n_threads=load.n_threads,
        flash_attention=load.flash_attention,
        kv_cache_type=load.kv_cache_type,
    )
    return CacheOptions(
        n_ctx_tokens=load.n_ctx_tokens,
        n_cells=load.n_cells,
        n_parallel=load.n_parallel,
        options=options,
        layout=load.cache_layout,
        n_shelf_tokens=load.n_shelf_tokens,
        is_gpu=load.is_gpu,
        n_devices=load.n_devices,
    )
