"""OpenTelemetry's module, where it is wanted and its extra is there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.settings import Settings


def otel_module(settings: Settings) -> Any:
    """Return `otel_spans`, for settings that ask for spans.

    Raises:
        SettingsError: the extra is not installed.
    """
    try:
        return import_module("paddock.runner.progress.otel_spans")
    except ImportError as error:
        remedy = "Install it: `pip install 'paddock-llm[otel]'`."
        problem = f"'{settings.otel}' needs the extra 'otel', which is not installed."
        raise SettingsError("PADDOCK_OTEL", problem, remedy) from error
