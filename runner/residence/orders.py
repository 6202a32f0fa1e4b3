"""What a local service that is started is told of the settings: one JSON text, nothing secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from paddock.engine.settings import PoolSettings
from paddock.runner.settings import Settings
from paddock.runner.unattended_settings import UnattendedSettings


@dataclass(frozen=True, slots=True)
class Order:
    """How a service is to be started."""

    settings: Settings
    wants_prefect: bool


def write(order: Order) -> str:
    """Write an order."""
    settings = order.settings
    pool = asdict(settings.pool)
    value = {
        "state_dir": str(settings.state_dir),
        "idle_s": settings.unattended.service_idle_s,
        "keep_tracking_s": settings.unattended.keep_tracking_s,
        "wants_prefect": order.wants_prefect,
        "pool": {name: str(one) if isinstance(one, Path) else one for name, one in pool.items()},
    }
    return json.dumps(value)


def read(text: str) -> Order:
    """Read what `write` wrote."""
    from pydantic import TypeAdapter

    value = json.loads(text)
    settings = Settings(
        pool=TypeAdapter(PoolSettings).validate_python(value["pool"]),
        state_dir=Path(value["state_dir"]),
        unattended=UnattendedSettings(
            service_idle_s=float(value["idle_s"]),
            keep_tracking_s=float(value["keep_tracking_s"]),
        ),
    )
    return Order(settings, bool(value["wants_prefect"]))
