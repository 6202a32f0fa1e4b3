"""`paddock serve`: models, the console and the review page over HTTP, until Ctrl-C.

Imports the HTTP application, so only the command that serves imports it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from paddock.engine.api import access_log, api_keys, server
from paddock.engine.api.monitoring import ServiceState
from paddock.engine.api.request_log import Exchange
from paddock.engine.backends.background_tuning import BackgroundTuner
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import running
from paddock.engine.system.text import shell_command
from paddock.runner.daemon import service_lookup
from paddock.runner.daemon.daemon_server import keep_offering
from paddock.runner.daemon.ollama_service import hosted_service
from paddock.runner.progress import printing
from paddock.runner.progress.command_logs import prepare_logging
from paddock.runner.progress.otel_extra import otel_module
from paddock.runner.review.page_server import FolderReviews, mounted_page
from paddock.runner.settings import KEYS_FILE_NAME, Settings

from .console_actions import ConsoleSources
from .doctor import is_systemd_unit, port_holder
from .exit_status import CommandError
from .web_console import WebConsole


def serve_models(settings: Settings, port: int | None) -> None:
    """Serve until Ctrl-C; `port` is used instead of that of the settings."""
    if port is not None:
        settings = with_port(settings, port)
    refuse_open_service(settings)
    with _open_port(settings) as listener:
        prepare_logging(settings)
        if settings.is_debug:
            settings = replace(settings, service=replace(settings.service, access_log=True))
        folder = Path.cwd()
        all_reviews = FolderReviews(lambda: [folder], settings.ledger_url)
        keys, is_open = settings.service.api_keys_file, not settings.service.is_loopback
        # With keys, all of the service is behind them.
        pages = mounted_page(
            all_reviews, settings.state_dir, keys=keys, is_open=is_open, needs_key=keys is not None
        )

        async def run(ended: Callable[[Exchange], None]) -> None:
            async with (
                hosted_service(settings) as service,
                BackgroundTuner(service.pool),
                running(keep_offering(settings, service.pool)),
                pages as page,
            ):
                state = ServiceState()
                service.request_log.on_end = ended
                sources = ConsoleSources(
                    lambda: [folder], settings, own_state=lambda: state.read(service)
                )
                console_routes = WebConsole(page.access, sources).routes()
                service.extra_routes = [*service.extra_routes, *page.routes(), *console_routes]
                await server.serve(service, listener, lambda bound: _print_address(settings, bound))

        spans: AbstractContextManager[Callable[[Exchange], None]] = nullcontext(lambda _: None)
        if settings.otel != "off":
            spans = otel_module(settings).request_spans()
        log: AbstractContextManager[Callable[[str], None]] = nullcontext(printing.print_err)
        if settings.service.access_log:
            log = access_log.access_log_to_stream()
        with log as say, spans as ended:
            asyncio.run(run(ended))
            say("Stopped.")


def with_port(settings: Settings, port: int) -> Settings:
    return replace(
        settings,
        service=replace(settings.service, port=port),
        address=replace(settings.address, port=port),
    )


def refuse_open_service(settings: Settings) -> None:
    """Refuse to serve other machines without keys, except with `--insecure`."""
    service = settings.service
    if service.is_loopback or service.is_insecure or service.api_keys_file is not None:
        return
    file = settings.state_dir / KEYS_FILE_NAME
    make = f"{shell_command('mkdir', '-p', file.parent)} && {api_keys.key_command(file)}"
    serve = shell_command("paddock", "serve", "--host", service.netloc, "--api-keys", file)
    raise CommandError(
        f"Anyone who reaches {service.netloc} could use this machine: there are no API keys.\n"
        f"  {make} && {serve}"
    )


def _open_port(settings: Settings) -> socket.socket:
    """Bind the port before the pool and the pages open."""
    host = settings.service.host
    try:
        return server.listen(host, settings.service.port)
    except server.PortTaken as error:
        port = error.port
    program = service_lookup.identify_service(settings)
    pid, name = port_holder(port)
    holder = f" ({name}, process {pid})" if pid else ""
    if program is service_lookup.ServerKind.PADDOCK:
        raise CommandError(
            f"Paddock serves at {settings.address.url} already{holder}.\n  paddock ps"
        )
    remedy = f"paddock serve --host {host} --port {_free_port(port)}"
    is_ollama = program is service_lookup.ServerKind.OLLAMA
    if is_ollama and pid and is_systemd_unit(pid, "ollama.service"):
        remedy = "sudo systemctl stop ollama && paddock serve"
    what = f"Port {port} is taken by {program or service_lookup.ServerKind.OTHER}{holder}."
    raise CommandError(f"{what}\n  {remedy}")


def _free_port(near: int) -> int:
    for port in range(near + 1, min(near + 50, 65536)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    return 0


def _print_address(settings: Settings, listener: socket.socket) -> None:
    real = with_port(settings, listener.getsockname()[1])
    printing.print_err(
        f"Paddock serves at {real.address.url}, models in {settings.pool.models_dir}."
    )
    service = settings.service
    if not service.is_loopback:
        users = "anyone with a key" if service.api_keys_file else "ANYONE, WITHOUT A KEY,"
        printing.print_err(f"It listens on {real.service.netloc}: {users} may use it.")
    if settings.without_effect:
        printing.print_err(f"Without effect here: {', '.join(settings.without_effect)}.")
    printing.print_err("Ctrl-C ends it.")
