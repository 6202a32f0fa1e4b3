"""Vectors of an encoder's IR are those of its file, alone and beside others."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.gguf import read_header
from paddock.engine.llama.forward_context import EmbeddingModel
from paddock.engine.llama.library import LoadFailed, route_llama_log
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.openvino.ir_model import IrEncoder
from paddock.engine.openvino.ir_writer import computes_bf16, write_in_bf16, write_ir
from paddock.engine.tuning.tuned_copies import graph_file
from tests.engine.decoding.test_loop import NEWS

OPTIONS = ContextOptions(1024, 1024, 16, 2, embeds=True)
MEAN = b"pooling_type" + (4).to_bytes(4, "little") + (1).to_bytes(4, "little")
TEXTS = ("a", "Ferries", NEWS[:40], NEWS[:41], NEWS, f"{NEWS} {NEWS}", "Zürich 12,50 €")


@pytest.fixture(scope="module", params=["mean", "first token"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    route_llama_log()
    folder = tmp_path_factory.mktemp("encoder")
    source = ModelFinder(folder, folder).locate("all-minilm").path
    if request.param == "mean":
        return source
    data = source.read_bytes()
    assert data.count(MEAN) == 1
    copy = folder / "first.gguf"
    copy.write_bytes(data.replace(MEAN, MEAN[:-4] + (2).to_bytes(4, "little")))
    return copy


@pytest.fixture(scope="module")
def by_llama(file: Path) -> Iterator[Model]:
    model = Model(file, ModelOptions(n_gpu_layers=0))
    yield model
    model.close()


def embedded(model: EmbeddingModel, texts: Sequence[Tokens]) -> Vectors:
    with model.open_context(OPTIONS) as context:
        context.decode(
            np.concatenate([*texts, np.zeros(9, np.int32)]),  # what fills gaps is left out
            np.concatenate([*(np.arange(len(text), dtype=np.int32) for text in texts), [0] * 9]),
            np.repeat(np.arange(len(texts) + 1, dtype=np.int32), [*map(len, texts), 9]),
            np.repeat(np.array([1, 0], np.int8), [sum(map(len, texts)), 9]),
        )
        vectors = np.array([context.embedding(number) for number in range(len(texts))])
        assert vectors.shape == (len(texts), context.n_pooled)
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def test_an_ir_gives_the_vectors_of_its_file_whatever_is_beside(
    file: Path, by_llama: Model, tmp_path: Path
) -> None:
    ir, in_bf16 = tmp_path / "weights.bin", tmp_path / "bf16.bin"
    write_ir(file, ir, graph_file(ir), 2)
    write_in_bf16(ir, in_bf16)
    texts = [by_llama.tokenise(text, with_special=True, parse_special=False) for text in TEXTS]
    expected = embedded(by_llama, texts)
    for each in (ir, in_bf16) if computes_bf16() else (ir,):
        model = IrEncoder(file, each, 2)
        together = embedded(model, texts)
        assert ((together * expected).sum(axis=1) > 0.999).all()
        alone = np.concatenate([embedded(model, [text]) for text in texts])
        assert np.array_equal(alone, together)
        model.close()


@pytest.mark.parametrize(
    ("name", "other", "why"),
    [
        (b"blk.0.attn_q.bias", b"blk.0.attn_x.bias", "blk.0.attn_q.bias is missing"),
        (b"pooling_type\x04\x00\x00\x00\x01", b"pooling_type\x04\x00\x00\x00\x03", "by type 3"),
    ],
)
def test_what_is_no_plain_bert_is_refused(
    file: Path, tmp_path: Path, name: bytes, other: bytes, why: str
) -> None:
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(
        file.read_bytes().replace(MEAN[:-4] + b"\2", MEAN[:-4] + b"\1").replace(name, other)
    )
    assert read_header(odd).role == "embed"
    ir = tmp_path / "weights.bin"
    with pytest.raises(LoadFailed, match=why):
        write_ir(odd, ir, graph_file(ir), 2)
    assert [each.name for each in tmp_path.iterdir()] == ["odd.gguf"]
