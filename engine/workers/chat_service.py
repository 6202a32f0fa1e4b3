"""Chats inside a worker: requests come from the reading thread, answers from the owner thread.

New constraints are compiled in threads of their own: neither answers nor other requests wait.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.chat.answer_format import required_schemas
from paddock.engine.chat.prompt_builder import BuiltPrompt, PromptBuilder
from paddock.engine.chat.prompt_overflow import answer_limit_tokens
from paddock.engine.decoding.answer_scores import AnswerScores
from paddock.engine.decoding.context_limits import MOST_SEQ_IDS
from paddock.engine.decoding.draft_model import DraftModel
from paddock.engine.decoding.kv_cache import KvCache
from paddock.engine.decoding.layout_plans import CacheOptions
from paddock.engine.decoding.loop import CancelRequest, DecodeLoop, IdleWork, Shutdown, WidenContext
from paddock.engine.decoding.mtp_head import MtpHead, mtp_price
from paddock.engine.decoding.running_request import DecodeRequest, StepOutput, text_tokens
from paddock.engine.decoding.scheduler import StepSizer
from paddock.engine.errors import BadRequest, EngineError, PromptTooLong
from paddock.engine.gguf import read_header
from paddock.engine.llama.forward_context import BatchContext, ChatModel
from paddock.engine.llama.library import supports_mtp
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.profile.context_layout import n_chat_slots
from paddock.engine.profile.profile import Profile
from paddock.engine.request import Constraint
from paddock.engine.sampling.picker import Picker
from paddock.engine.system.frame_processes import MOST_PROCESSES
from paddock.engine.system.frames import FrameHead
from paddock.engine.system.records import asdict, replace

from .worker_protocol import ChatOrder, WorkerOptions, pack_refusal

if TYPE_CHECKING:
    from paddock.engine.sampling.constraint import GrammarCompiler, TokenMatcher

Send = Callable[[FrameHead], None]
Measure = Callable[[Callable[[], bool]], Profile | None]
"""Measures the model, unless its argument returns True."""

# Each frame wakes the pool's process, which takes a core from the computing threads: 0.7 ms of a
# small model's 6 ms a token. So jobs' output is held this long, streamed output about as long as a
# screen frame, but never beyond the next step if steps are slow.
HOLD_S, READ_HOLD_S = 0.2, 0.02

COMPILER_STACK_BYTES = 16 * 1024 * 1024
"""More than in the trial subprocess: what passes there cannot end a worker."""

_CONFIGURATION = attrgetter(
    "digest", "adapters", "build", "device", "fallback", "n_threads", "n_gpu_layers",
    "n_cpu_experts", "split_mode", "tensor_split", "n_pass_tokens", "kv_cache_type",
)  # fmt: skip
"""By what a worker computes, whatever the request (`numerics`)."""

_CompileKey = tuple[Constraint, Constraint | None, tuple[tuple[str, str], ...]]
"""The arguments of `GrammarCompiler.matcher`."""

# Longest answer whose history shifts, in contexts, as in Ollama.
MOST_SHIFTED_CONTEXTS = 10


class OutputBuffer:
    """Outputs of steps that are sent together in one frame."""

    def __init__(self) -> None:
        self._turns: list[tuple[float, StepOutput]] = []
        self._is_read = False
        """Whether one of them has streamed output."""

    def add(self, output: StepOutput, now: float) -> list[FrameHead]:
        self._turns.append((now, output))
        self._is_read |= output.is_read
        hold_s = READ_HOLD_S if self._is_read else HOLD_S
        # The next output comes only at the end of its step.
        if not output.is_urgent and now + output.step_s - self._turns[0][0] < hold_s:
            return []
        turns = [{**step.as_head(), "age_s": now - at} for at, step in self._turns]
        self._turns.clear()
        self._is_read = False
        return turns


class ChatService:
    def __init__(
        self,
        model: ChatModel[Any],
        prompter: PromptBuilder,
        load: WorkerOptions,
        profile: Profile | None,
        send: Send,
        step_sizer: StepSizer | None = None,
    ) -> None:
        self._model = model
        self._prompter = prompter
        self._load = load
        self._send = send
        self._compiling: dict[_CompileKey, list[tuple[int, ChatOrder, BuiltPrompt]]] = {}
        """Requests that wait for each constraint to be compiled."""
        self._compiling_lock = threading.Lock()
        self._to_compile: queue.SimpleQueue[_CompileKey] = queue.SimpleQueue()
        self._has_compilers = False
        self._outputs = OutputBuffer()
        self._cache = KvCache(model, _cache_options(load), profile)
        self._draft_model = _draft_model(load, model)
        keeps_answers = self._cache.agreement.drafts is not False
        if isinstance(self._draft_model, MtpHead) and keeps_answers:
            self._draft_model.prepare(self._cache.context.options)
        self._reported_contexts = self._contexts
        self._loop = DecodeLoop(
            self._cache,
            self._send_step,
            lambda request_id: send({"event": "widened", "id": request_id}),
            lambda request_id, error: send(pack_refusal(request_id, error)),
            self._draft_model,
            step_sizer,
            _CONFIGURATION(load),
        )
        self._loop.on_started = lambda ids: send({"event": "started", "ids": ids})
        self.measured: Measure = lambda _should_stop: None

    def run(self) -> None:
        """Run until `close` is called.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        self._loop.run()

    def close(self) -> None:
        self._loop.post(Shutdown())

    def memory(self) -> FrameHead:
        context = self._cache.context.buffers
        everything = self._model.buffers + context
        if self._draft_model is not None:
            everything += self._draft_model.buffers
        growing = context.cells
        if isinstance(self._draft_model, MtpHead):
            growing = growing + self._draft_model.buffers.cells
        cache = self._cache
        head = everything.as_head(growing, cache.limits.n_cells, cache.planner.n_cells_at_most)
        if self._load.projector and self._load.has_device:
            head["device_bytes"] += Path(self._load.projector).stat().st_size
        return head

    @property
    def _contexts(self) -> tuple[BatchContext | None, ...]:
        return self._cache.context, self._draft_model.context if self._draft_model else None

    def take(self, head: FrameHead, body: bytes) -> None:
        """Handle a request for a chat, a cancellation, a longer context or a measurement.

        Raises:
            EngineError: it cannot be served; nothing was queued.
        """
        if head["op"] == "cancel":
            if not self._stop_waiting(head["id"]):
                self._loop.post(CancelRequest(head["id"]))
        elif head["op"] == "widen":
            n_ctx_tokens = max(head["n_ctx_tokens"], self._load.n_ctx_tokens)
            self._load = replace(self._load, n_ctx_tokens=n_ctx_tokens)
            self._loop.post(WidenContext(head["id"], head["n_ctx_tokens"], head["n_cells"]))
        elif head["op"] == "measure":
            self._loop.post(IdleWork(partial(self._measure, head)))
        else:
            self._take_chat(head["id"], ChatOrder.unpack(head, body))

    def _take_chat(self, request_id: int, order: ChatOrder) -> None:
        n_ctx_tokens = min(order.n_ctx_tokens, self._load.n_ctx_tokens)
        self._prompter.check_length(order.request, n_ctx_tokens)
        # Drop stop strings if the answer is JSON: one within a text would break it
        constraint = order.request.constraint
        sampling = order.sampling
        if constraint is not None and constraint.kind in ("json", "json_schema"):
            sampling = replace(sampling, stop=())
        prompt = self._prompter.chat(order.request, sampling, n_ctx_tokens)
        _answer_budget(prompt, order, n_ctx_tokens)  # too long is said before anything is compiled
        if prompt.constraint is None:
            self._loop.post(self._decode_request(request_id, order, prompt, None))
            return
        matcher = self._grammars.known(prompt.constraint)
        if matcher is not None:
            self._loop.post(self._decode_request(request_id, order, prompt, matcher))
        else:
            self._compile_for(request_id, order, prompt, prompt.constraint)

    # New constraints

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        """The compiler of constraints; importing llguidance takes 50 ms."""
        from paddock.engine.sampling.constraint import GrammarCompiler

        return GrammarCompiler(self._model)

    def _compile_for(
        self, request_id: int, order: ChatOrder, prompt: BuiltPrompt, constraint: Constraint
    ) -> None:
        key = (constraint, order.request.constraint, required_schemas(order.request))
        with self._compiling_lock:
            waiting = self._compiling.get(key)
            if waiting is not None:
                waiting.append((request_id, order, prompt))
                return
            self._compiling[key] = [(request_id, order, prompt)]
        if not self._has_compilers:
            self._has_compilers = True
            usual_bytes = threading.stack_size(COMPILER_STACK_BYTES)
            try:
                for number in range(MOST_PROCESSES):
                    name = f"compiler {number}"
                    threading.Thread(target=self._compile_all, name=name, daemon=True).start()
            finally:
                threading.stack_size(usual_bytes)
        self._to_compile.put(key)

    def _compile_all(self) -> None:
        while True:
            key = self._to_compile.get()
            made: TokenMatcher | EngineError
            try:
                made = self._grammars.matcher(*key)
            except EngineError as error:
                made = error
            except BaseException:  # even a panic of Rust: requests must not wait forever
                traceback.print_exc()
                made = BadRequest("the schema or grammar cannot be used")
            self._finish_compiling(key, made)
            self._send({"event": "alive", "for_s": 0})  # waiting requests make no steps

    def _finish_compiling(self, key: _CompileKey, made: TokenMatcher | EngineError) -> None:
        with self._compiling_lock:  # no cancellation between here and the loop
            for request_id, order, prompt in self._compiling.pop(key):
                if isinstance(made, EngineError):
                    self._send(pack_refusal(request_id, made))
                    continue
                try:
                    decode_request = self._decode_request(request_id, order, prompt, made.new())
                except EngineError as error:
                    self._send(pack_refusal(request_id, error))
                except Exception:  # the other requests and this thread go on, as the reading one
                    traceback.print_exc()
                    refusal = BadRequest("the model cannot process this request; the log says why")
                    self._send(pack_refusal(request_id, refusal))
                else:
                    self._loop.post(decode_request)

    def _stop_waiting(self, request_id: int) -> bool:
        with self._compiling_lock:
            for waiting in self._compiling.values():
                for entry in waiting:
                    if entry[0] == request_id:
                        waiting.remove(entry)
                        return True
        return False

    def _decode_request(
        self, request_id: int, order: ChatOrder, prompt: BuiltPrompt, matcher: TokenMatcher | None
    ) -> DecodeRequest:
        request, n_ctx_tokens = order.request, min(order.n_ctx_tokens, self._load.n_ctx_tokens)
        scores = None
        if request.answers:
            answers = self._prompter.answers(request.answers)
            scores = AnswerScores(answers, self._model.piece, 0, is_echo=False)
            sampling = replace(order.sampling, max_tokens=scores.n_longest)
            order = replace(order, sampling=sampling)
        elif request.scores_prompt and not prompt.images:
            piece = partial(self._model.piece, shows_control=True)
            n_top = request.n_logprobs or 0
            scores = AnswerScores([prompt.tokens[1:]], piece, n_top, is_echo=True)
        budget = _answer_budget(prompt, order, n_ctx_tokens)
        shifts = bool(request.shifts) and not prompt.images
        if shifts:
            most, max_tokens = n_ctx_tokens * MOST_SHIFTED_CONTEXTS, order.sampling.max_tokens or 0
            budget = min(max_tokens, most) if max_tokens > 0 else most
        picker = Picker(
            order.sampling,
            text_tokens(prompt.tokens),
            self._model,
            matcher=matcher,
            max_tokens=budget,
            n_logprobs=request.n_logprobs,
        )
        if prompt.n_original is not None:  # sent before the first token
            n_tokens = prompt.n_original
            self._send({"event": "shortened", "id": request_id, "n_tokens": n_tokens})
        n_keep = request.n_keep_tokens + 1  # one for BOS
        n_keep = n_keep if n_keep > 0 else len(prompt.tokens)
        return DecodeRequest(
            request_id,
            prompt.tokens,
            budget,
            request.priority,
            picker,
            prompt.parser,
            prompt.visible_tokens,
            False if shifts or scores else request.drafts,
            images=prompt.images,
            shift_at=n_ctx_tokens if shifts else 0,
            n_keep_tokens=n_keep if shifts else 0,
            is_open=not request.reserves_answer,
            wants_tokens=request.wants_tokens,
            scores=scores,
        )

    def _measure(self, head: FrameHead, should_stop: Callable[[], bool]) -> None:
        self._send({"event": "alive", "for_s": 2 * self._load.profile_s})
        profile = self.measured(should_stop)
        if profile is not None:
            self._loop.use_profile(profile)
        result = asdict(profile) if profile is not None else None
        self._send({"event": "told", "id": head["id"], "result": result})

    def _send_step(self, output: StepOutput) -> None:
        if self._contexts != self._reported_contexts:  # another one was made
            self._reported_contexts = self._contexts
            self._send({"event": "memory", "memory": self.memory()})
        turns = self._outputs.add(output, time.monotonic())
        if turns:
            self._send({"event": "turns", "turns": turns})


def _answer_budget(prompt: BuiltPrompt, order: ChatOrder, n_ctx_tokens: int) -> int:
    reserves = order.request.reserves_answer
    max_tokens = order.sampling.max_tokens
    try:
        return answer_limit_tokens(len(prompt.tokens), max_tokens, n_ctx_tokens, reserves=reserves)
    except PromptTooLong as error:
        n_prompt = prompt.n_original or error.n_prompt_tokens
        raise PromptTooLong(n_prompt, error.n_reserved_tokens, n_ctx_tokens) from None


def _draft_model(load: WorkerOptions, model: ChatModel[Any]) -> DraftModel | MtpHead | None:
    """Load the draft model, with a sequence for each slot of the main model; or use the MTP head.

    Raises:
        LoadFailed: it cannot be loaded, or does not fit this model.
    """
    if not load.draft_path:
        if load.uses_mtp and supports_mtp() and isinstance(model, Model):
            return MtpHead(model)
        return None
    small = Model(
        Path(load.draft_path),
        ModelOptions(
            n_gpu_layers=load.n_gpu_layers,
            main_gpu=load.main_gpu,
            uses_extra_buffers=load.uses_extra_buffers,
        ),
    )
    n_seats = min(load.n_parallel + n_chat_slots(load.n_parallel), MOST_SEQ_IDS)
    return DraftModel(small, model, replace(_cache_options(load).options, n_seq_max=n_seats))


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
        layout="unified" if load.ir else load.cache_layout,
        n_host_cache_tokens=load.n_host_cache_tokens,
        is_gpu=load.is_gpu,
        n_devices=load.n_devices,
        mtp_price=mtp_price(read_header(Path(load.path))) if load.uses_mtp else 1.0,
    )
