"""What llama.cpp's log tells: its buffers by device, and why a call failed."""

import pytest

from paddock.engine.llama.library import LlamaLog, LogRecording

MIB = 1024**2
INFO, WARNING, ERROR = 2, 3, 4

# As an 8B Q8_0 on two cards says it: loading, then a context of 8,192 cells laid out twice.
WEIGHTS = """\
load_tensors:   CPU_Mapped model buffer size =   532.31 MiB
load_tensors:        CUDA0 model buffer size =  3846.27 MiB
load_tensors:        CUDA1 model buffer size =  3756.27 MiB
"""
CONTEXT = """\
llama_context:  CUDA_Host  output buffer size =     4.65 MiB
llama_kv_cache:      CUDA0 KV buffer size =   544.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   480.00 MiB
sched_reserve:      CUDA0 compute buffer size =   900.00 MiB
sched_reserve:      CUDA0 compute buffer size =   304.75 MiB
sched_reserve:      CUDA1 compute buffer size =   312.75 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.02 MiB
"""


def test_buffers_are_counted_by_device_with_the_contexts_of_cuda() -> None:
    context = LogRecording(CONTEXT.splitlines()).buffers()
    head = (LogRecording(WEIGHTS.splitlines()).buffers() + context).as_head(
        context.cells, 8192, 32768
    )
    mib = head["device_bytes"] / MIB
    assert mib == pytest.approx(3846.27 + 3756.27 + 1024 + 304.75 + 312.75 + 2 * 512)
    assert head["cell_bytes"] == [0, 1024 * MIB]


def test_a_failed_call_is_explained_in_llamas_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    log = LlamaLog()
    log(ERROR, b"said before\n", None)
    with log.recording() as recording:
        log(INFO, b"llama_context: n_ctx = 8192\n", None)
        log(WARNING, b"n_ctx_seq > n_ctx_train\n", None)
        log(ERROR, b"allocating 7605.33 MiB on device 0: cudaMalloc failed: out of memory\n", None)
        log(ERROR, b"alloc_tensor_range: failed to allocate CUDA0 buffer\n", None)
    log(ERROR, b"said after\n", None)
    assert recording.explain("no context") == (
        "no context: allocating 7605.33 MiB on device 0: cudaMalloc failed: out of memory | "
        "alloc_tensor_range: failed to allocate CUDA0 buffer"
    )
    assert "n_ctx = 8192" not in capsys.readouterr().err, "warnings and errors alone"
