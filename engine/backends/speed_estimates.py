"""Estimates of model speed on this machine.

Reads stored profiles only; nothing is measured or loaded here.
"""

from __future__ import annotations

from functools import cached_property

from paddock.engine.errors import EngineError
from paddock.engine.memory.device_memory import Device, this_device
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.context_layout import Workload, workload_s
from paddock.engine.profile.profile import (
    Agreement,
    DeviceBuild,
    Profile,
    ProfileStore,
    this_device_build,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.fallbacks import FallbackStore


def reproducibility(agreement: Agreement, *, is_unified: bool) -> str:
    """Return in one line what a greedy answer keeps, and in which layout of the cache.

    Only answers in a split one are compared.
    """
    drafts = "; drafts would change them and are off" if agreement.drafts is False else ""
    if is_unified:
        return f"not compared in a unified cache{drafts}"
    if agreement.company and agreement.drafts:
        return "the same alone, beside other requests and with drafts, in a split cache"
    if agreement.company:
        return f"the same alone and beside other requests, in a split cache{drafts}"
    if agreement.company is False:
        return f"not always the same: kernels round by what runs in the same step{drafts}"
    return f"not compared: there was no time to measure that{drafts}"


class SpeedBook:
    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings

    @staticmethod
    def workload(n_calls: float, n_prompt: float, n_answer: float, n_shared: float) -> Workload:
        """Return a workload by its total tokens; `n_shared` are found in the cache."""
        n = max(1.0, n_calls)
        return Workload(
            n_sequences=round(n),
            n_prompt_tokens=n_prompt / n,
            n_answer_tokens=n_answer / n,
            n_shared_tokens=min(n_shared, n_prompt) / n,
        )

    def seconds(self, ref: str, workload: Workload) -> float | None:
        """Return seconds that a model takes for some work; None: not measured."""
        profile = self._profile(ref)
        return workload_s(profile, workload) if profile is not None else None

    def greedy_answers(self, ref: str) -> tuple[str, Agreement] | None:
        """Return what a model's greedy answers keep, in words too; None: not measured."""
        profile = self._profile(ref)
        if profile is None:
            return None
        is_unified = self._settings.cache_layout == "unified"
        return reproducibility(profile.agreement, is_unified=is_unified), profile.agreement

    def names(self) -> tuple[str, ...]:
        return self._finder.names()

    def _profile(self, ref: str) -> Profile | None:
        if not self._profiles.has_any:
            return None
        try:
            facts = self._finder.find(ref, self._settings.n_ctx_tokens)
        except EngineError:
            return None  # reported where the model is used
        place = profile_place(self._settings, facts.digest, self._device)
        return self._profiles.find(facts.digest, place)

    @cached_property
    def _finder(self) -> ModelFinder:
        return ModelFinder(self._settings.models_dir, self._settings.cache_dir)

    @cached_property
    def _profiles(self) -> ProfileStore:
        return ProfileStore(self._settings.cache_dir)

    @cached_property
    def _device(self) -> Device:
        return this_device()


def profile_place(
    settings: PoolSettings, digest: str = "", device: Device | None = None
) -> DeviceBuild:
    """Return the device id of profiles; `device` None: this machine's is read.

    A model with this digest may run with a fallback of llama.cpp, and was measured with it.
    """
    device = device or this_device()
    gpu = device.name if device.is_gpu and settings.n_gpu_layers else ""
    needed = FallbackStore(settings.cache_dir, gpu).find(digest)
    return this_device_build(settings, device.n_threads, gpu, needed.fallback if needed else 0)
