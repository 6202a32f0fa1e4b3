"""NVIDIA's management library as ctypes shows it: functions that write through pointers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NOT_SUPPORTED, _NOT_FOUND, _IS_LOST = 3, 6, 15


@dataclass(frozen=True)
class Card:
    """One device, or an instance of one."""

    name: str
    uuid: str
    memory: tuple[int, int] | None = (0, 0)
    """Total and free bytes; None: not supported, as on devices that share main memory."""
    capability: tuple[int, int] = (0, 0)
    instances: Sequence[Card] | None = None
    is_lost: bool = False


class FakeNvml:
    """A driver with these cards. A handle is an index into all devices, plus one."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = cards
        self._all = [*cards, *(one for card in cards for one in card.instances or ())]

    def _card(self, handle: Any) -> Card:
        number: int = handle.value
        return self._all[number - 1]

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _: Any) -> int:
        text.value = b"570.86.10"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self._cards)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return _IS_LOST if self._cards[index.value].is_lost else 0

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = self._card(handle).capability
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, _: Any) -> int:
        text.value = self._card(handle).name.encode()
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, _: Any) -> int:
        text.value = self._card(handle).uuid.encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        card = self._card(handle)
        if card.memory is None:
            return _NOT_SUPPORTED
        memory._obj.total, memory._obj.free = card.memory
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, _: Any) -> int:
        card = self._card(handle)
        current._obj.value = int(card.instances is not None)
        return 0 if card in self._cards else _NOT_SUPPORTED

    def nvmlDeviceGetMaxMigDeviceCount(self, _: Any, count: Any) -> int:
        count._obj.value = 7
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, found: Any) -> int:
        instances = self._card(handle).instances or ()
        if index.value >= len(instances):
            return _NOT_FOUND
        found._obj.value = self._all.index(instances[index.value]) + 1
        return 0
