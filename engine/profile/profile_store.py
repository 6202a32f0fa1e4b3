"""Store profiles: one small file for each model, device and build of llama.cpp.

They are in the cache folder, not next to the model's file, since a model store may be read-only or
shared by machines of different speeds. A profile that is lost or damaged is measured again. Imports
no llama_cpp.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.llama.build import find_build
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.hardware import read_cpu

from .profile import Profile, ProfileUnreadable, read_profile

_PROFILE_FOLDER, _FAILURE_KEY = "profiles", "not measured"
# After a failure, for example on a busy machine, loading does not measure again for this long.
REMEASURE_AFTER_S = 300.0
_DIGEST_CHARS, _DEVICE_CHARS, _BUILD_CHARS = 12, 48, 6


@dataclass(frozen=True, slots=True)
class DeviceBuild:
    """Device and build of llama.cpp, on which speeds depend."""

    device: str
    """`cpu2-…` with the number of threads, or `gpu-…`."""
    build: str
    """llama.cpp's build, and the settings that change its kernels."""


def this_device_build(
    settings: PoolSettings, n_threads: int, gpu: str = "", fallback: int = 0
) -> DeviceBuild:
    """Return this machine's device and build; `gpu` is the graphics device's name or "".

    `fallback` is that of `workers.crashes`, which changes the speed.
    """
    n_threads = settings.n_threads or n_threads
    device = f"gpu-{device_slug(gpu)}" if gpu else f"cpu{n_threads}-{device_slug(read_cpu().name)}"
    parts = (
        find_build().fingerprint,
        f"cache={settings.kv_cache_type}",
        f"flash={settings.flash_attention}",
        f"layers={settings.n_gpu_layers}" if gpu else "",
        f"fallback={fallback}" if fallback else "",
    )
    return DeviceBuild(device[:_DEVICE_CHARS].rstrip("-"), " ".join(filter(None, parts)))


def device_slug(name: str) -> str:
    """Return a device's name as a part of a file name.

    >>> device_slug("Intel(R) Xeon(R) Processor @ 2.10GHz")
    'intel-r-xeon-r-processor-2-10ghz'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def write_json(file: Path, data: object) -> bool:
    """Write a small file atomically; return False if its folder cannot be written."""
    try:
        files.write_json_atomically(file, data)
    except OSError:
        return False
    return True


class ProfileStore:
    """Reads and writes profiles."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / _PROFILE_FOLDER

    @property
    def has_any(self) -> bool:
        return self._folder.is_dir()

    def find(self, digest: str, place: DeviceBuild) -> Profile | None:
        try:
            profile = read_profile(files.read_json(self._file(digest, place)))
        except ProfileUnreadable:
            return None
        is_it = (profile.digest, profile.device, profile.build) == (
            digest, place.device, place.build
        )  # fmt: skip
        return profile if is_it else None

    def keep(self, profile: Profile) -> bool:
        """Write a profile; return False if the folder cannot be written."""
        place = DeviceBuild(profile.device, profile.build)
        return write_json(self._file(profile.digest, place), profile.as_json())

    def failure_reason(self, digest: str, place: DeviceBuild) -> str:
        """Return why measuring failed when a model was last loaded; "" if it did not."""
        return str(files.read_json_object(self._file(digest, place)).get(_FAILURE_KEY, ""))

    def has_recent_failure(self, digest: str, place: DeviceBuild) -> bool:
        try:
            age_s = time.time() - self._file(digest, place).stat().st_mtime
        except OSError:
            return False
        return 0 <= age_s < REMEASURE_AFTER_S and bool(self.failure_reason(digest, place))

    def save_failure(self, digest: str, place: DeviceBuild, why: str) -> None:
        """Save why measuring failed, unless there is a profile."""
        if self.find(digest, place) is None:
            write_json(self._file(digest, place), {_FAILURE_KEY: why})

    def forget(self, digest: str, place: DeviceBuild) -> None:
        """Remove a profile, so that it is measured again."""
        self._file(digest, place).unlink(missing_ok=True)

    def _file(self, digest: str, place: DeviceBuild) -> Path:
        build = hashlib.sha256(place.build.encode()).hexdigest()[:_BUILD_CHARS]
        return self._folder / f"{digest[:_DIGEST_CHARS]}-{place.device}-{build}.json"


class PoolProfiles:
    """Profiles in the pool: sent to workers, received from them."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._book = ProfileStore(settings.cache_dir)
        self._places: dict[tuple[int, str, int], DeviceBuild] = {}

    def load_fields(
        self, digest: str, n_threads: int, gpu: str = "", fallback: int = 0
    ) -> dict[str, Any]:
        """Return the fields of `WorkerOptions` about a model's profile."""
        place = self._place(n_threads, gpu, fallback)
        known = self._book.find(digest, place)
        has_failed = known is None and self._book.has_recent_failure(digest, place)
        return {
            "profile_s": 0.0 if has_failed else self._settings.profile_s,
            "profile": known.as_json() if known is not None else None,
            "digest": digest,
            "device": place.device,
            "build": place.build,
        }

    def find(self, digest: str, n_threads: int, gpu: str) -> Profile | None:
        return self._book.find(digest, self._place(n_threads, gpu, 0))

    def _place(self, n_threads: int, gpu: str, fallback: int) -> DeviceBuild:
        key = (n_threads, gpu, fallback)
        if key not in self._places:
            self._places[key] = this_device_build(self._settings, n_threads, gpu, fallback)
        return self._places[key]

    def keep(self, load_fields: Mapping[str, Any], ready: Mapping[str, Any]) -> None:
        """Save what a worker's `ready` frame has: a new profile, or why there is none."""
        if ready.get("profile") is not None:
            with suppress(ProfileUnreadable):
                self._book.keep(read_profile(ready["profile"]))
        elif ready.get("profile_note"):
            place = DeviceBuild(load_fields["device"], load_fields["build"])
            self._book.save_failure(load_fields["digest"], place, ready["profile_note"])
