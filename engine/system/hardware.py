"""Hardware of this machine: processor, memory, graphics devices, disk. Knows no llama.cpp.

Nothing is loaded or switched on: every value comes from the operating system's records or from the
vendor's management library, so reading is safe on a busy machine.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Literal

from paddock.engine.system.records import Struct

from .processes import run_blocking

GpuKind = Literal["cuda", "rocm", "metal"]

VENDOR_TOOL_S = 5.0

CONTEXT_BYTES = 512 * 1024 * 1024
"""Device memory of each process that computes with CUDA or HIP, apart from its buffers: its context
and the kernels, 300 to 600 MB by card and driver."""

# What llama.cpp's kernels choose by, under the names of /proc/cpuinfo.
_FEATURES = frozenset((
    "sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "bf16",
))  # fmt: skip


class Cpu(Struct, frozen=True):
    name: str
    n_cores: int
    n_usable: int
    """Logical processors that this process may use: affinity and container limits count."""
    features: tuple[str, ...]


class MainMemory(Struct, frozen=True):
    total_bytes: int
    free_bytes: int
    """What can be had without swapping."""


class Gpu(Struct, frozen=True):
    kind: GpuKind
    name: str
    memory_bytes: int | None = None
    architecture: str | None = None
    """Of CUDA: the compute capability, such as '9.0'."""
    free_bytes: int | None = None
    uuid: str = ""
    driver: str = ""


def context_bytes(name: str) -> int:
    """Return what a process takes beyond its buffers on a device that llama.cpp gives this name.

    >>> context_bytes("CUDA0") // 2**20, context_bytes("Vulkan0")
    (512, 0)
    """
    return CONTEXT_BYTES if name.startswith(("CUDA", "ROCm", "MUSA")) else 0


def psutil_module() -> ModuleType:
    """Return psutil, whose 4 ms most commands need not spend."""
    import psutil

    return psutil


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    text = _text_or_empty(cpuinfo)
    name = _proc_field(text, "model name") or platform.processor() or platform.machine()
    if sys.platform == "darwin":
        ended = run_blocking(("sysctl", "-n", "machdep.cpu.brand_string"), timeout_s=VENDOR_TOOL_S)
        name = (ended.stdout.decode(errors="replace").strip() if ended else "") or name
    flags = (_proc_field(text, "flags") or _proc_field(text, "Features")).split()
    if hasattr(os, "sched_getaffinity"):
        n_usable = len(os.sched_getaffinity(0))
    else:
        n_usable = os.cpu_count() or 1
    # What a container's quota leaves
    quota, _, period = _text_or_empty(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        n_usable = min(n_usable, round(int(quota) / int(period)))
    return Cpu(
        name=name,
        n_cores=psutil_module().cpu_count(logical=False) or os.cpu_count() or 1,
        n_usable=max(1, n_usable),
        features=tuple(sorted(_FEATURES & set(flags))),
    )


def read_memory(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> MainMemory:
    """Read total and free memory: the machine's, or less where a container or a scope has less."""
    seen = psutil_module().virtual_memory()
    total, free = int(seen.total), int(seen.available)
    for folder, files in _memory_groups(cgroup, _text_or_empty(own)):
        limit = _text_or_empty(folder / files.limit).strip()
        if limit.isdigit() and int(limit) < seen.total:
            total = min(total, int(limit))
            free = min(free, int(limit) - _used_bytes(folder, files))
    return MainMemory(total, max(0, free))


class _MemoryFiles(Struct, frozen=True):
    limit: str
    used: str
    cached: tuple[str, str]
    """Lines of `memory.stat`."""


_V1 = _MemoryFiles(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
)
_V2 = _MemoryFiles("memory.max", "memory.current", ("inactive_file", "active_file"))


def _memory_groups(cgroup: Path, own: str) -> Iterator[tuple[Path, _MemoryFiles]]:
    """Yield the control groups that bound this process, each with those around it.

    `own` is the text of /proc/self/cgroup: `0::/a/b` in version 2, `4:memory:/a/b` in version 1. A
    container may see its own group at the top, whatever the text says.
    """
    places = {"": PurePosixPath("/"), "memory": PurePosixPath("/")}
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        name = "memory" if "memory" in controllers.split(",") else controllers
        if name in places:
            places[name] = PurePosixPath(path)
    for name, files in (("", _V2), ("memory", _V1)):
        top, place = cgroup / name, places[name]
        for around in (place, *place.parents):
            yield top / str(around).lstrip("/"), files


def _used_bytes(folder: Path, files: _MemoryFiles) -> int:
    """Return what a control group uses, without the file cache that the kernel gives back."""
    used = _text_or_empty(folder / files.used).strip()
    stat = dict(line.split() for line in _text_or_empty(folder / "memory.stat").splitlines())
    cached = sum(int(stat.get(name, 0)) for name in files.cached)
    return (int(used) if used.isdigit() else 0) - cached


def read_oom_kills(root: Path = Path("/")) -> int:
    """Count the processes that the kernel has ended for want of memory; 0 where it does not tell.

    The container's own count and the machine's: a kill raises at least one of them.
    """
    texts = (
        _text_or_empty(root / "sys/fs/cgroup/memory.events"),
        _text_or_empty(root / "proc/vmstat"),
    )
    lines = (line.split() for text in texts for line in text.splitlines())
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] == "oom_kill")


def read_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """List the graphics devices that llama.cpp could use with a matching build.

    `CUDA_VISIBLE_DEVICES` does not count here: it hides devices, it does not remove them.
    """
    is_apples = sys.platform == "darwin" and platform.machine() == "arm64"
    return (*_nvidia(root), *_amd(root), *((Gpu("metal", "Apple"),) if is_apples else ()))


def _nvidia(root: Path) -> tuple[Gpu, ...]:
    """Ask the driver's library, which stays loaded.

    `nvidia-smi` loads it for each question, which takes 0.1 to 2 s, and with eight devices that no
    program keeps awake more than 5 s. No CUDA context is made, so asking takes no device memory.
    """
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        listed = nvidia_gpus(nvml) if nvml.nvmlInit_v2() == 0 else ()
    except (OSError, AttributeError):  # no driver, or one from before 2020
        listed = ()
    if listed:
        return listed
    # Containers that lack the vendor's library have the kernel driver's records.
    texts = map(_text_or_empty, sorted((root / "proc/driver/nvidia/gpus").glob("*/information")))
    return tuple(Gpu("cuda", _proc_field(text, "Model") or "NVIDIA") for text in texts)


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps what lies below a block in use."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def give_back_pages(path: Path) -> None:
    """Return a mapped file's pages to the system; where they are needed, they are read again."""
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text("utf-8", errors="replace").splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name == str(path.resolve()):
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


class _NvmlMemory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def nvidia_gpus(nvml: Any) -> tuple[Gpu, ...]:
    """List the devices of an initialised NVML in the order of the bus.

    A device that is divided (MIG) is its instances: CUDA computes on nothing else of it.
    """
    driver = _nvml_text(nvml.nvmlSystemGetDriverVersion)
    gpus = []
    for index in range(_nvml_number(nvml.nvmlDeviceGetCount_v2)):
        whole = _nvml_handle(nvml.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index))
        if whole is None:  # it has fallen off the bus, or is not ours to use
            continue
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvml.nvmlDeviceGetCudaComputeCapability(whole, ctypes.byref(major), ctypes.byref(minor))
        architecture = f"{major.value}.{minor.value}" if major.value else None
        # The MIG instances of a device, or the device itself where it is not divided
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        status = nvml.nvmlDeviceGetMigMode(whole, ctypes.byref(current), ctypes.byref(pending))
        if status != 0 or not current.value:
            instances = [whole]
        else:
            ask = nvml.nvmlDeviceGetMigDeviceHandleByIndex
            n_most = _nvml_number(nvml.nvmlDeviceGetMaxMigDeviceCount, whole)
            found = (_nvml_handle(ask, whole, ctypes.c_uint(index)) for index in range(n_most))
            instances = [handle for handle in found if handle is not None]
        for device in instances:
            memory = _NvmlMemory()
            is_known = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
            gpus.append(
                Gpu(
                    "cuda",
                    _nvml_text(nvml.nvmlDeviceGetName, device) or "NVIDIA",
                    memory.total if is_known else None,
                    architecture,
                    memory.free if is_known else None,
                    _nvml_text(nvml.nvmlDeviceGetUUID, device),
                    driver,
                )
            )
    return tuple(gpus)


def _nvml_number(call: Any, *arguments: Any) -> int:
    number = ctypes.c_uint()
    return number.value if call(*arguments, ctypes.byref(number)) == 0 else 0


def _nvml_text(call: Any, *arguments: Any) -> str:
    text = ctypes.create_string_buffer(96)
    was_read = call(*arguments, text, ctypes.c_uint(len(text))) == 0
    return text.value.decode(errors="replace") if was_read else ""


def _nvml_handle(call: Any, *arguments: Any) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    return handle if call(*arguments, ctypes.byref(handle)) == 0 else None


def _amd(root: Path) -> tuple[Gpu, ...]:
    """Ask the ROCm kernel driver; a node without SIMD units is a processor."""
    if not (root / "dev/kfd").exists():
        return ()
    gpus = []
    for node in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*")):
        facts = dict(
            line.split(" ", 1)
            for line in _text_or_empty(node / "properties").splitlines()
            if " " in line
        )
        if facts.get("simd_count", "0").strip() != "0":
            name = _text_or_empty(node / "name").strip() or "AMD"
            minor = facts.get("drm_render_minor", "").strip()
            drm = root / "sys/class/drm" / f"renderD{minor}" / "device"
            total, used = (
                _text_or_empty(drm / f"mem_info_vram_{kind}") for kind in ("total", "used")
            )
            if total.strip().isdigit() and used.strip().isdigit():
                gpus.append(Gpu("rocm", name, int(total), free_bytes=int(total) - int(used)))
            else:
                gpus.append(Gpu("rocm", name))
    return tuple(gpus)


def hidden_gpus(environ: Mapping[str, str]) -> str | None:
    """Return the setting that hides every CUDA device, as it would be written, or None."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    return f'CUDA_VISIBLE_DEVICES="{value}"' if value is not None and value in ("", "-1") else None


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` leaves, in its order.

    CUDA reads indexes and beginnings of UUIDs, and stops at the first that names no device. The
    indexes are those of `nvidia-smi`: workers get `CUDA_DEVICE_ORDER=PCI_BUS_ID`, or UUIDs.
    """
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return tuple(gpus)
    cuda = [gpu for gpu in gpus if gpu.kind == "cuda"]
    chosen: list[Gpu] = []
    for name in (part.strip() for part in value.split(",")):
        if name.isdigit():
            named = cuda[int(name)] if int(name) < len(cuda) else None
        else:
            named = next((gpu for gpu in cuda if name and gpu.uuid.startswith(name)), None)
        if named is None:
            break
        chosen.append(named)
    return (*chosen, *(gpu for gpu in gpus if gpu.kind != "cuda"))


def _text_or_empty(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _proc_field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""
