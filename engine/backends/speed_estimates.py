"""Estimates of model speed on this machine.

Reads stored profiles only; nothing is measured or loaded here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from paddock.engine.errors import EngineError
from paddock.engine.memory.device_memory import this_device
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.context_layout import Workload, workload_s
from paddock.engine.profile.profile import ProfileStore, this_device_build
from paddock.engine.settings import PoolSettings
from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.workers.fallbacks import FallbackStore

if TYPE_CHECKING:
    from paddock.engine.memory.device_memory import Device
    from paddock.engine.profile.profile import DeviceBuild, Profile
    from paddock.engine.request import ModelFacts


@dataclass(frozen=True, slots=True)
class ComputeMode:
    """What a model's greedy answers keep on this machine."""

    company: bool | None
    """Whether answers are the same alone and beside other requests; None: not measured."""
    drafts: bool | None
    """Whether they are the same with drafts; None: not measured."""
    is_unified: bool = False
    """Whether its cache is always unified; only answers in a split one are compared."""

    def reproducibility(self) -> str:
        """Return in one line what a greedy answer keeps, and in which layout of the cache."""
        drafts = "; drafts would change them and are off" if self.drafts is False else ""
        if self.is_unified:
            return f"not compared in a unified cache{drafts}"
        if self.company and self.drafts:
            return "the same alone, beside other requests and with drafts, in a split cache"
        if self.company:
            return f"the same alone and beside other requests, in a split cache{drafts}"
        if self.company is False:
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
        _, profile = self._profiled(ref)
        return workload_s(profile, workload) if profile is not None else None

    def compute_mode(self, ref: str) -> ComputeMode | None:
        """Return how a model computes here and what its answers keep; None: not measured."""
        facts, profile = self._profiled(ref)
        if facts is None or profile is None:
            return None
        is_unified = self._settings.cache_layout == "unified"
        agreement = profile.agreement
        return ComputeMode(None if is_unified else agreement.company, agreement.drafts, is_unified)

    def compute_modes(self) -> Iterable[tuple[str, ComputeMode]]:
        for name in self._finder.names():
            if (mode := self.compute_mode(name)) is not None:
                yield name, mode

    def _facts(self, ref: str) -> ModelFacts | None:
        if not self._profiles.has_any:
            return None
        try:
            return self._finder.find(ref, self._settings.n_ctx_tokens)
        except EngineError:
            return None  # reported where the model is used

    def _profiled(self, ref: str) -> tuple[ModelFacts | None, Profile | None]:
        """Return a model's facts and its profile; None where one is not there."""
        facts = self._facts(ref)
        if facts is None:
            return None, None
        return facts, self._profiles.find(facts.digest, self._place(facts))

    @cached_property
    def _finder(self) -> ModelFinder:
        return ModelFinder(self._settings.models_dir, self._settings.cache_dir)

    @cached_property
    def _profiles(self) -> ProfileStore:
        return ProfileStore(self._settings.cache_dir)

    def _place(self, facts: ModelFacts) -> DeviceBuild:
        return profile_place(self._settings, facts.digest, self._device)

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
