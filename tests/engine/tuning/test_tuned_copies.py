"""Records of tuned copies: what is there serves, what is gone does not, what others use stays."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.tuning.tuned_copies import CopySpeeds, TunedCopy, TunedCopyStore, TuningVerdict


def copy_in(folder: Path, original: str, digest: str = "e" * 64) -> TunedCopy:
    """Put a copy's file into the store's blobs."""
    blob = folder / "models" / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(b"a copy")
    return TunedCopy(
        name="smollm2:135m",
        original=original,
        digest=digest,
        path=str(blob),
        format="Q8_0",
        size_bytes=6,
        more_bytes=2,
        agreement=0.954,
        n_compared=768,
        before=CopySpeeds(500.0, 190.0, 280.0),
        after=CopySpeeds(1000.0, 175.0, 400.0),
        made_at=1.0,
    )


def test_a_copy_is_found_until_its_file_is_gone_or_another(tmp_path: Path) -> None:
    book, made = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    assert book.find("a" * 64) is None
    book.keep(made)
    assert book.find("a" * 64) == made
    assert list(book.all()) == [made]
    assert (made.prompts_ratio, round(made.answers_ratio, 2)) == (2.0, 1.43)
    Path(made.path).write_bytes(b"half")
    assert book.find("a" * 64) is None
    Path(made.path).unlink()
    assert list(book.all()) == []


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    book, made = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    book.keep(made)
    for text in ("", "[]", "{}", '{"version": 1}', '{"version": 2}'):
        (book.folder / f"{'a' * 64}.json").write_text(text, "utf-8")
        assert book.find("a" * 64) is None
    for name in ("path", "name", "before", "size_bytes"):
        text = json.dumps({**asdict(made), name: [5]})
        (book.folder / f"{'a' * 64}.json").write_text(text, "utf-8")
        assert book.find("a" * 64) is None
        assert list(book.all()) == []
    (book.folder / f"{'b' * 64}.verdict").write_text('{"name": 5, "place": "", "text": "odd"}')
    book.keep_verdict("c" * 64, TuningVerdict("mine", "", "it is no faster"))
    assert [verdict.name for verdict in book.verdicts()] == ["mine"]
    assert book.forget("a" * 64) is None


def test_any_damage_to_a_record_or_a_verdict_is_read_or_reported(tmp_path: Path) -> None:
    book, made = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    book.keep(made)
    book.keep_verdict("b" * 64, TuningVerdict("small", "here", "it gains nothing", n_attempts=2))
    chance, n_damaged = random.Random(24), 0
    for file in sorted(book.folder.iterdir()):
        whole = file.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            if chance.random() < 0.1:
                del data[chance.randrange(len(data)) :]
            else:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(7)
            file.write_bytes(data)
            assert book.damaged() in ([], [file])
            n_damaged += bool(book.damaged())
            [copy.prompts_ratio * copy.answer_ratio for copy in book.all()]
            [verdict.sentence for verdict in book.verdicts()]
        file.write_bytes(whole)
    assert 30 < n_damaged < 120
    assert book.damaged() == []


def test_undoing_removes_the_record_and_the_file(tmp_path: Path) -> None:
    book, made = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    book.keep(made)
    assert book.forget("a" * 64) == made
    assert not Path(made.path).exists()
    assert book.forget("a" * 64) is None


def test_a_file_that_was_there_before_or_that_a_name_stands_for_stays(tmp_path: Path) -> None:
    book, made = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    book.keep(replace(made, is_ours=False))
    book.forget("a" * 64)
    assert Path(made.path).exists()

    book.keep(made)
    manifest = tmp_path / "models/manifests/registry.ollama.ai/library/other/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f'{{"layers": [{{"digest": "sha256:{made.digest}"}}]}}', "utf-8")
    book.forget("a" * 64)
    assert Path(made.path).exists()


def test_a_second_copy_takes_the_first_ones_place(tmp_path: Path) -> None:
    book, first = TunedCopyStore(tmp_path), copy_in(tmp_path, "a" * 64)
    second = copy_in(tmp_path, "a" * 64, "f" * 64)
    book.keep(first)
    book.keep(second)
    assert book.find("a" * 64) == second
    assert not Path(first.path).exists()


def test_a_model_with_a_copy_is_served_by_it_under_its_own_name(tmp_path: Path) -> None:
    finder = ModelFinder(tmp_path / "models", tmp_path / "cache")
    original = finder.find("smollm2:135m")
    assert original.tuned_from is None
    made = copy_in(tmp_path, original.digest)
    finder.tuned.keep(made)
    served = finder.find("smollm2:135m")
    assert (served.name, served.path, served.digest) == ("smollm2:135m", made.path, made.digest)
    assert served.tuned_from == original.digest
    assert finder.find_original("smollm2:135m") == original
    finder.tuned.forget(original.digest)
    assert finder.find("smollm2:135m") == original


def test_copies_of_models_that_are_gone_go_and_those_of_files_elsewhere_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may have been named from another folder, or lie in another store."""
    finder = ModelFinder(tmp_path / "models", tmp_path)
    file = tmp_path / "elsewhere" / "m.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    stays, goes = (
        replace(copy_in(tmp_path, mark * 64, mark * 64), name="./m.gguf", original_path=str(path))
        for mark, path in (("a", file), ("b", tmp_path / "gone.gguf"))
    )
    finder.tuned.keep(stays)
    finder.tuned.keep(goes)
    monkeypatch.chdir(tmp_path)
    assert finder.forget_copies_of_gone_models() == [goes]
    assert Path(stays.path).exists()
    assert not Path(goes.path).exists()
