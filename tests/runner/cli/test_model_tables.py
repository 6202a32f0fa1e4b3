from dataclasses import replace
from datetime import UTC, datetime, timedelta

from paddock.runner.cli import model_tables
from paddock.runner.cli.model_tables import ModelRow

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STORED = ModelRow(
    "qwen3:4b", "ab" * 32, 2_620_000_000, "chat", NOW - timedelta(hours=3), "store", "/m/blobs/ab"
)
BUNDLED = ModelRow(
    "all-minilm", "cd" * 32, 20_887_072, "embed", NOW - timedelta(days=40), "bundled", "/e/a.gguf"
)


def test_a_model_row_reads_as_with_ollama() -> None:
    assert model_tables.model_table([STORED, BUNDLED], NOW) == (
        "NAME         ID             SIZE     MODIFIED      ROLE    FROM\n"
        "qwen3:4b     abababababab   2.6 GB   3 hours ago   chat    store\n"
        "all-minilm   cdcdcdcdcdcd   21 MB    1 month ago   embed   bundled (a.gguf)"
    )


def test_of_a_services_models_it_is_not_told_where_they_lie() -> None:
    row = replace(STORED, origin="", path="")
    assert model_tables.model_table([row], NOW).splitlines()[0].split() == [
        *("NAME", "ID", "SIZE", "MODIFIED", "ROLE")
    ]
    assert set(row.as_json()) == {"name", "digest", "size", "modified", "role"}


MODEL_INFO = {
    "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "llama.embedding_length": 576,
        "tokenizer.ggml.tokens": list(range(2000)),
    },
    "capabilities": ["completion", "tools"],
    "parameters": 'stop                           "<|im_end|>"\ntemperature                    0.2',
    "system": "You are\x1b brief.",
    "license": "Apache License\nVersion 2.0\nJanuary 2004",
    "tensors": [{"name": "output.weight", "type": "Q8_0", "shape": [576, 49152]}],
}


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
        "  System\n"
        "    You are\\x1b brief.\n"
        "\n"
        "  License\n"
        "    Apache License\n"
        "    Version 2.0"
    )
