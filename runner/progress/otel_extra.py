"""Whether OpenTelemetry is wanted, and its extra is there."""

from __future__ import annotations

from importlib import import_module

from paddock.runner.settings import Settings, SettingsError


def sends_otel(settings: Settings) -> bool:
    """Return whether spans are sent; `otel_spans`, which does it, can be imported then.

    Raises:
        SettingsError: the extra is not installed.
    """
    if settings.otel == "off":
        return False
    try:
        import_module("paddock.runner.progress.otel_spans")
    except ImportError as error:
        remedy = "Install it: `pip install 'paddock-llm[otel]'`."
        problem = f"'{settings.otel}' needs the extra 'otel', which is not installed."
        raise SettingsError("PADDOCK_OTEL", problem, remedy) from error
    return True
