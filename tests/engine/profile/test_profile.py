"""Profiles give times between the measured points, and are kept by model, device and build."""

import json
from pathlib import Path

import pytest

from paddock.engine.profile.profile import (
    Agreement,
    DecodePoint,
    DeviceBuild,
    PoolProfiles,
    PrefillPoint,
    Profile,
    ProfileStore,
    neighbour_s,
    prefill_s,
    step_s,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import asdict, record_from, replace

WHOLE = Profile(
    digest="a" * 64,
    device="cpu2-some",
    build="0.3.36",
    cell_bytes=23_040.0,
    prefill=(PrefillPoint(100, 100.0), PrefillPoint(200, 200.0), PrefillPoint(100, 50.0, 1000)),
    decode=(
        DecodePoint(1, 100, True, 100.0),
        DecodePoint(4, 100, True, 200.0),
        DecodePoint(4, 300, True, 100.0),
        DecodePoint(4, 100, False, 400.0),
    ),
    copy_s=1e-5,
    agreement=Agreement(False, True),
)


def test_a_profile_comes_back_from_json_as_it_was() -> None:
    assert record_from(Profile, json.loads(json.dumps(asdict(WHOLE)))) == WHOLE


def test_times_lie_between_the_measured_ones() -> None:
    assert prefill_s(WHOLE, 100) == prefill_s(WHOLE, 200) == pytest.approx(1.0)
    assert prefill_s(WHOLE, 400) == pytest.approx(2.0)
    assert step_s(WHOLE, 1, 100, True) == pytest.approx(0.01)
    assert step_s(WHOLE, 4, 200, True) == pytest.approx(0.03)
    assert step_s(WHOLE, 4, 100, False) == pytest.approx(0.01)


def test_a_batch_smaller_than_the_measured_ones_lies_between_them_and_one_token() -> None:
    assert 0.01 < prefill_s(WHOLE, 50) < prefill_s(WHOLE, 100)


def test_cells_of_others_cost_what_was_measured() -> None:
    assert neighbour_s(WHOLE) == pytest.approx(1e-5)
    assert prefill_s(WHOLE, 100, n_cells_before=2000) == pytest.approx(3.0)


def test_an_unmeasured_unified_cache_attends_to_the_cells_of_all() -> None:
    split = tuple(DecodePoint(8, depth, False, 8 / (0.01 + depth * 1e-6)) for depth in (64, 1024))
    device = replace(WHOLE, decode=split)
    apart_s, together_s = (step_s(device, 8, 1000, is_unified) for is_unified in (False, True))
    assert apart_s == pytest.approx(0.011)
    assert together_s == pytest.approx(0.01 + 8 * 0.001 + 1.5e-9 * 64 * 1000)


def test_where_nothing_was_measured_no_time_is_claimed() -> None:
    nothing = replace(WHOLE, prefill=(), decode=())
    assert prefill_s(nothing, 100) == step_s(nothing, 1, 1, True) == 0.0


HERE = DeviceBuild("cpu2-some-processor", "llama-cpp-python 0.3.36 cache=f16")


def profile(place: DeviceBuild = HERE) -> Profile:
    return Profile("ab" * 32, place.device, place.build, 23_040.0, (PrefillPoint(64, 500.0),))


def test_what_was_kept_is_found_again_and_lies_in_one_file(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    assert book.find("ab" * 32, HERE) is None
    book.keep(profile())
    assert book.find("ab" * 32, HERE) == profile()
    (file,) = (tmp_path / "profiles").iterdir()
    assert file.name.startswith("abababababab-cpu2-some-processor-")


def test_another_build_device_or_model_has_another_profile(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    book.keep(profile())
    assert book.find("ab" * 32, DeviceBuild(HERE.device, "llama-cpp-python 0.3.37")) is None
    assert book.find("ab" * 32, DeviceBuild("gpu-h200", HERE.build)) is None
    assert book.find("ab" * 6 + "cd" * 26, HERE) is None, "only the beginning is the same"


def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    book.keep(profile())
    (file,) = (tmp_path / "profiles").iterdir()
    for text in ("", "[]", '{"version": 1}', "\x00\xff", '{"version": 99}'):
        file.write_text(text, "utf-8")
        assert book.find("ab" * 32, HERE) is None
    book.keep(profile())
    assert book.find("ab" * 32, HERE) == profile()


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("a file where the folder should be", "utf-8")
    ProfileStore(tmp_path).keep(profile())


def test_what_a_worker_tells_is_there_at_the_next_load(tmp_path: Path) -> None:
    profiles = PoolProfiles(PoolSettings(cache_dir=tmp_path, profile_s=2.0))
    first = profiles.load_fields("ab" * 32, 2)
    assert (first["profile"], first["profile_s"]) == (None, 2.0)
    measured = profile(DeviceBuild(first["device"], first["build"]))
    profiles.keep({"profile": asdict(measured)})
    profiles.keep({"profile": {"version": 0}})
    profiles.keep({})
    assert profiles.load_fields("ab" * 32, 2)["profile"] == asdict(measured)


@pytest.mark.parametrize("lacks", ["version", "prefill", "decode", "agreement"])
def test_a_profile_without_its_measurements_is_none(tmp_path: Path, lacks: str) -> None:
    book, whole = ProfileStore(tmp_path), profile()
    book.keep(whole)
    (file,) = (tmp_path / "profiles").iterdir()
    values = asdict(whole)
    file.write_text(json.dumps({name: values[name] for name in values if name != lacks}))
    assert book.find(whole.digest, HERE) is None


def test_a_profile_with_unknown_measurements_is_none(tmp_path: Path) -> None:
    book, whole = ProfileStore(tmp_path), profile()
    book.keep(whole)
    (file,) = (tmp_path / "profiles").iterdir()
    for strange in (
        {"new": 1}, {"agreement": {"new": True}},
        {"prefill": [{"n_batch_tokens": 64, "tokens_per_s": 5.0, "new": 1}]},
    ):  # fmt: skip
        file.write_text(json.dumps({**asdict(whole), **strange}))
        assert book.find(whole.digest, HERE) is None
