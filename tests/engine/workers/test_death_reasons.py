"""What workers say when memory runs out, as llama.cpp said it, and what they say otherwise."""

import pytest

from paddock.engine.workers.death_reasons import WorkerEnd, end_of_process


@pytest.mark.parametrize(
    "words",
    [
        # Recorded under `ulimit -v 600000`.
        "llama.cpp cannot make a context of 9216 tokens for 9 sequences: "
        "ggml_gallocr_reserve_n_impl: failed to allocate CPU buffer of size 103026976 | "
        "graph_reserve: failed to allocate compute buffers | llama_init_from_model: failed to "
        "initialize the context: failed to allocate compute pp buffers",
        # As ggml-cuda.cu and llama-model.cpp write it.
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 7605.33 MiB on device 0: "
        "cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "CUDA error: the resource allocation failed",  # of cuBLAS
        "killed by SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_llamas_own_words_tell_that_memory_ran_out(words: str) -> None:
    assert WorkerEnd(words).ran_out_of_memory(0, 0)


@pytest.mark.parametrize(
    "words",
    [
        "killed by SIGABRT: GGML_ASSERT(n_tokens <= n_batch) failed",
        "llama.cpp cannot load /models/odd.gguf: error loading model hyperparameters",
        "it made no step within 120 s",
        "ended with status 70",
    ],
)
def test_other_deaths_are_not_taken_for_it(words: str) -> None:
    assert not WorkerEnd(words).ran_out_of_memory(4, 5)


def test_a_kill_counts_where_the_kernel_says_that_it_killed_for_memory() -> None:
    killed = end_of_process(-9, "idle")
    assert killed.ran_out_of_memory(4, 5)
    assert not killed.ran_out_of_memory(4, 4), "another process killed it"


def test_want_of_memory_is_found_before_its_consequences() -> None:
    cuda = [
        "CUDA error: out of memory",
        "  current device: 0, in function alloc at ggml-cuda.cu:552",
        "/build/ggml-cuda.cu:109: CUDA error",
        *(f"libggml-base.so(+0x{n:x})" for n in range(20)),
    ]
    assert end_of_process(-6, "answering request 1", cuda).ran_out_of_memory(0, 0)
    grown = [
        "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv",
        "Traceback (most recent call last):",
        '  File "worker.py", line 290, in <module>',
        "paddock.engine.llama.library.LoadFailed: llama.cpp cannot make a context",
    ]
    assert end_of_process(70, "answering request 1", grown).ran_out_of_memory(0, 0)
    vulkan = ["vk::Device::allocateMemory: ErrorOutOfDeviceMemory", "terminate called"]
    assert end_of_process(-6, "idle", vulkan).ran_out_of_memory(0, 0)
