"""What goes through the pipe comes out as it went in."""

import io

from paddock.engine.errors import (
    BadRequest,
    EngineError,
    NoInsert,
    PromptTooLong,
    TextTooLong,
    read_error,
)
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    ModelSpec,
    Sampling,
    Tool,
    ToolCall,
)
from paddock.engine.system.frames import pack_frame, read_frame
from paddock.engine.wire import from_plain, to_plain
from paddock.engine.workers.worker_protocol import ChatOrder, pack_refusal

REQUEST = ChatRequest(
    ModelSpec("m"),
    (
        Message("user", "Look.", images=(b"\x89PNG", b"")),
        Message("assistant", "", tool_calls=(ToolCall("f", {"x": 1}, "c1"),)),
        Message("tool", "2", tool_name="f", tool_call_id="c1"),
    ),
    {"temperature": 1},
    "interactive",
    tools=(Tool("f", "Adds", {"type": "object"}),),
    constraint=Constraint("regex", "[0-9]"),
    think="low",
    n_logprobs=3,
    prompt="Once",
    prompt_tokens=(1, 2, 3),
    images=(b"GIF89a", b"BM"),
    suffix="end",
    template="{{ .Prompt }}",
    reserves_answer=False,
    truncates=True,
    n_keep_tokens=9,
    wants_tokens=True,
    defaults={"top_k": 1},
)


def test_every_wish_of_a_request_arrives_in_the_worker() -> None:
    sampling = Sampling(0.5, stop=("a", "b"), max_tokens=-1, logit_bias={7: -1.5}, typical_p=0.4)
    order, body = ChatOrder(REQUEST, sampling, 2048), bytearray()
    packed = pack_frame({"order": to_plain(order, body)}, bytes(body))
    head, images = read_frame(io.BytesIO(packed))
    assert from_plain(ChatOrder, head["order"], images) == order


def test_a_refusal_is_the_same_error_on_the_other_side() -> None:
    errors: tuple[EngineError, ...] = (
        NoInsert(),
        BadRequest("no"),
        PromptTooLong(9, 1, 8),
        TextTooLong(3, 9, 8),
    )
    for error in errors:
        read = read_error(pack_refusal(1, error)["error"])
        assert (type(read), str(read)) == (type(error), str(error))
        assert vars(read) == vars(error)
