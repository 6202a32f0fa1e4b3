"""Profiles are kept by model, device and build, and a damaged one is no obstacle."""

from __future__ import annotations

import os
from pathlib import Path

from paddock.engine.profile.profile import PrefillPoint, Profile
from paddock.engine.profile.profile_store import (
    DeviceBuild,
    PoolProfiles,
    ProfileStore,
    this_device_build,
)
from paddock.engine.settings import PoolSettings

HERE = DeviceBuild("cpu2-some-processor", "llama-cpp-python 0.3.36 cache=f16")


def profile(place: DeviceBuild = HERE) -> Profile:
    return Profile(
        "ab" * 32, place.device, place.build, 1.0, 2, 0.5, 98, 23_040.0, (PrefillPoint(64, 500.0),)
    )


def test_what_was_kept_is_found_again_and_lies_in_one_file(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    assert book.find("ab" * 32, HERE) is None
    assert book.keep(profile())
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
    assert book.keep(profile())
    assert book.find("ab" * 32, HERE) == profile()


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("a file where the folder should be", "utf-8")
    assert not ProfileStore(tmp_path).keep(profile())


def test_why_a_model_was_not_measured_is_kept_until_it_is(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    assert book.failure_reason("ab" * 32, HERE) == ""
    book.save_failure("ab" * 32, HERE, "other programs used the processor")
    assert book.find("ab" * 32, HERE) is None
    assert book.failure_reason("ab" * 32, HERE) == "other programs used the processor"
    book.keep(profile())
    book.save_failure("ab" * 32, HERE, "later")
    assert book.find("ab" * 32, HERE) == profile()
    assert book.failure_reason("ab" * 32, HERE) == ""


def test_what_a_worker_tells_is_there_at_the_next_load(tmp_path: Path) -> None:
    profiles = PoolProfiles(PoolSettings(cache_dir=tmp_path, profile_s=2.0))
    first = profiles.load_fields("ab" * 32, 2)
    assert (first["profile"], first["profile_s"]) == (None, 2.0)
    told = profile(DeviceBuild(first["device"], first["build"]))
    profiles.keep(first, {"profile": told.as_json(), "profile_note": ""})
    assert profiles.load_fields("ab" * 32, 2)["profile"] == told.as_json()
    profiles.keep(first, {"profile": {"version": 0}})
    profiles.keep(first, {})
    assert profiles.load_fields("ab" * 32, 2)["profile"] == told.as_json()


def test_after_a_vain_attempt_the_next_loads_are_spared(tmp_path: Path) -> None:
    profiles = PoolProfiles(PoolSettings(cache_dir=tmp_path, profile_s=2.0))
    first = profiles.load_fields("ab" * 32, 2)
    profiles.keep(first, {"profile": None, "profile_note": "other programs"})
    assert profiles.load_fields("ab" * 32, 2)["profile_s"] == 0.0
    (file,) = (tmp_path / "profiles").iterdir()
    os.utime(file, (1.0, 1.0))
    assert profiles.load_fields("ab" * 32, 2)["profile_s"] == 2.0


def test_a_forgotten_profile_is_gone(tmp_path: Path) -> None:
    book = ProfileStore(tmp_path)
    book.keep(profile())
    book.forget("ab" * 32, HERE)
    book.forget("ab" * 32, HERE)
    assert book.find("ab" * 32, HERE) is None


def test_a_place_is_named_by_threads_device_and_settings() -> None:
    two, one = this_device_build(PoolSettings(), 2), this_device_build(PoolSettings(n_threads=1), 2)
    assert two.device.startswith("cpu2-")
    assert one.device.startswith("cpu1-")
    assert two.build.startswith("llama-cpp-python ")
    assert this_device_build(PoolSettings(kv_cache_type="q8_0"), 2).build != two.build
    assert this_device_build(PoolSettings(), 2, "NVIDIA H200").device == "gpu-nvidia-h200"
