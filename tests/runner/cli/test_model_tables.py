from paddock.runner.cli import model_tables

MODEL_INFO = {
    "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "llama.embedding_length": 576,
        "tokenizer.ggml.tokens": list(range(2000)),
        "tokenizer.ggml.suppress_tokens": [2, 7, 49151],
        "general.sampling.temp": 0.2,
        "general.sampling.mirostat": 2,
    },
    "capabilities": ["completion", "tools"],
    "parameters": 'stop                           "<|im_end|>"\ntemperature                    0.2',
    "system": "You are\x1b brief.",
    "license": "Apache License\nVersion 2.0\nJanuary 2004",
    "tensors": [{"name": "output.weight", "type": "Q8_0", "shape": [576, 49152]}],
}


def test_what_a_file_says_of_decoding_is_told() -> None:
    here = {"name": "a", "capabilities": ["completion"], "of_file": {"top_k": 1, "top_p": 0.5}}
    assert model_tables.abilities_text([here]).endswith("completion; says top_k 1, top_p 0.5")


def test_what_is_known_of_a_model_is_told_in_parts() -> None:
    assert model_tables.model_card(MODEL_INFO) == (
        "  Model\n"
        "    architecture      llama\n"
        "    parameters        134.52M\n"
        "    context length    2048\n"
        "    embedding length  576\n"
        "    quantization      Q4_1\n"
        "\n"
        "  Capabilities\n"
        "    completion\n"
        "    tools\n"
        "\n"
        "  Parameters\n"
        '    stop         "<|im_end|>"\n'
        "    temperature  0.2\n"
        "\n"
        "  Never said\n"
        "    tokens  [2, 7, 49151]\n"
        "\n"
        "  Not obeyed\n"
        "    general.sampling.mirostat  2\n"
        "\n"
        "  System\n"
        "    You are\\x1b brief.\n"
        "\n"
        "  License\n"
        "    Apache License\n"
        "    Version 2.0"
    )
