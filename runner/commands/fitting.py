"""Warn where a model that comes to this machine will not fit it. Loads nothing."""

from __future__ import annotations

from paddock.engine.settings import PoolSettings
from paddock.runner.display import console

# Beside the weights: a short context, buffers, the process. Found at loads of small models.
_BESIDE = 1.1


class Watch:
    """Looks at one pull: at its size while it comes, and at the model when it is there."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._most_bytes = 0
        self._has_warned = False

    def coming(self, n_bytes: int) -> None:
        """Warn as soon as a layer shows that the model is larger than the machine."""
        if n_bytes <= self._most_bytes or self._has_warned:
            return
        self._most_bytes = n_bytes
        total_bytes, what = _most_memory()
        if n_bytes * _BESIDE > total_bytes:
            self._has_warned = True
            console.tell(
                f"WARNING: it has {console.size(n_bytes)}, and {what} has "
                f"{console.size(total_bytes)}: it will not fit. Ctrl-C stops."
            )

    def look_at(self, ref: str) -> None:
        """Warn where not even one short conversation fits what is free now."""
        if self._has_warned:
            return
        from paddock.engine.errors import EngineError

        try:
            words = warning(ref, self._settings)
        except EngineError:
            return  # it was pulled elsewhere, or is no model that can be looked at
        if words:
            console.tell(f"WARNING: {words}")


def warning(ref: str, settings: PoolSettings) -> str | None:
    """Say why a model cannot be loaded with what is free now; None: it can.

    Raises:
        EngineError: it is not in the store, or is broken.
    """
    from pathlib import Path

    from paddock.engine.models import ModelFinder
    from paddock.engine.residency.devices import this_device
    from paddock.engine.residency.fit import Wanted, layouts

    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    facts = finder.find(ref, settings.n_ctx_tokens)
    device = this_device()
    wanted = Wanted(facts, facts.n_ctx_tokens)
    header = finder.files.header(Path(facts.path), [Path(part) for part in facts.parts])
    ways = layouts(wanted, header, settings, device)
    if any(device.free.holds(way.room) for way in ways):
        return None
    least = min(way.room.total_bytes for way in ways)
    free = device.free.total_bytes if device.gpus else device.free_bytes
    return (
        f"{facts.name} needs about {console.size(least)} with its context, and "
        f"{console.size(free)} are free now."
    )


def _most_memory() -> tuple[int, str]:
    """Give the memory that a model would have to fit, and whose it is."""
    from paddock.engine import hardware
    from paddock.engine.residency.devices import this_device

    gpus = this_device().gpus
    if gpus:
        return sum(gpu.total_bytes for gpu in gpus), "the graphics memory"
    return hardware.read_memory().total_bytes, "this machine's memory"
