"""What the machine's own records say, read from small copies of them."""

import shutil
from pathlib import Path

import pytest

from paddock.engine.system import hardware
from paddock.engine.system.disk_space import free_disk_bytes
from tests.fakes.nvml import Card, FakeNvml


def test_this_machine_has_a_processor_and_memory() -> None:
    cpu, memory = hardware.read_cpu(), hardware.read_memory()
    assert cpu.n_usable >= 1
    assert 0 <= memory.free_bytes <= memory.total_bytes


def test_the_features_that_kernels_choose_by_are_read(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Xeon 9\nflags\t\t: fpu avx2 sse4_2 amx_int8 lm\n")
    cpu = hardware.read_cpu(info)
    assert (cpu.name, cpu.features) == ("Xeon 9", ("amx_int8", "avx2", "sse4_2"))


def test_a_containers_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    mib = 1024**2
    (tmp_path / "memory.max").write_text(f"{64 * mib}\n")
    (tmp_path / "memory.current").write_text(f"{48 * mib}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon 1\ninactive_file {10 * mib}\nactive_file {6 * mib}\n"
    )
    assert hardware.read_memory(tmp_path) == hardware.MainMemory(64 * mib, 32 * mib)


@pytest.mark.parametrize(
    ("own", "folder", "limit", "used"),
    [
        ("0::/user/run.scope\n", "user/run.scope", "memory.max", "memory.current"),
        ("0::/user/run.scope/inner\n", "user/run.scope", "memory.max", "memory.current"),
        ("5:cpu:/\n4:memory:/box\n0::/\n", "memory/box",
         "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("4:memory:/docker/1f\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)  # fmt: skip
def test_a_scopes_limit_counts_as_a_containers(
    tmp_path: Path, own: str, folder: str, limit: str, used: str
) -> None:
    mib = 1024**2
    (tmp_path / "cgroup" / folder).mkdir(parents=True)
    (tmp_path / "cgroup" / folder / limit).write_text(f"{64 * mib}\n")
    (tmp_path / "cgroup" / folder / used).write_text(f"{48 * mib}\n")
    (tmp_path / "own").write_text(own)
    found = hardware.read_memory(tmp_path / "cgroup", tmp_path / "own")
    assert found == hardware.MainMemory(64 * mib, 16 * mib)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert shutil.disk_usage(tmp_path).total >= free_disk_bytes(tmp_path / "not" / "yet") > 0


def test_the_drivers_library_tells_name_memory_uuid_and_driver() -> None:
    mib = 1024**2
    rtx = Card("NVIDIA GeForce RTX 3060", "GPU-1a2b", (12288 * mib, 11900 * mib), (8, 6))
    lost = Card("NVIDIA L4", "GPU-3c", is_lost=True)
    silent = Card("NVIDIA GB10", "GPU-4d", memory=None, capability=(12, 1))
    assert hardware.nvidia_gpus(FakeNvml([rtx, lost, silent])) == (
        hardware.Gpu("cuda", rtx.name, 12288 * mib, "8.6", 11900 * mib, "GPU-1a2b", "570.86.10"),
        hardware.Gpu("cuda", "NVIDIA GB10", None, "12.1", None, "GPU-4d", "570.86.10"),
    )


def test_a_divided_device_is_its_instances_and_one_of_them_can_be_chosen() -> None:
    gib = 1024**3
    parts = [Card("NVIDIA H200 MIG 1g.18gb", f"MIG-{n}", (18 * gib, n * gib)) for n in (5, 17)]
    h200 = Card("NVIDIA H200", "GPU-7c", (141 * gib, 100 * gib), (9, 0), instances=parts)
    gpus = hardware.nvidia_gpus(FakeNvml([h200]))
    assert [(gpu.uuid, gpu.free_bytes, gpu.architecture) for gpu in gpus] == [
        ("MIG-5", 5 * gib, "9.0"),
        ("MIG-17", 17 * gib, "9.0"),
    ]
    chosen = hardware.visible_gpus(gpus, {"CUDA_VISIBLE_DEVICES": "MIG-17"})
    assert [gpu.free_bytes for gpu in chosen] == [17 * gib]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, ["GPU-aa", "GPU-ab", "GPU-b"]),
        ("", []),
        ("2,0", ["GPU-b", "GPU-aa"]),
        ("GPU-ab", ["GPU-ab"]),
        ("0,7,1", ["GPU-aa"]),
    ],
)
def test_only_the_devices_that_cuda_would_show_count(value: str | None, seen: list[str]) -> None:
    gpus = [hardware.Gpu("cuda", "L4", uuid=uuid) for uuid in ("GPU-aa", "GPU-ab", "GPU-b")]
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert [gpu.uuid for gpu in hardware.visible_gpus(gpus, environ)] == seen


def test_the_kernels_count_of_processes_killed_for_memory_is_read(tmp_path: Path) -> None:
    assert hardware.read_oom_kills(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 3\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.events").write_text("oom 2\noom_kill 1\n")
    assert hardware.read_oom_kills(tmp_path) == 4


def test_where_the_vendors_library_lists_nothing_the_drivers_records_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeNvml([]))
    nvidia = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    nvidia.mkdir(parents=True)
    (nvidia / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 3\n")
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, simd_count in enumerate((0, 880)):
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(f"cpu_cores 1\nsimd_count {simd_count}\n")
    (nodes / "1" / "name").write_text("gfx942\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    gpus = [gpu for gpu in hardware.read_gpus(tmp_path) if gpu.kind != "metal"]
    assert gpus == [hardware.Gpu("cuda", "NVIDIA L4"), hardware.Gpu("rocm", "gfx942")]
    with (nodes / "1" / "properties").open("a") as properties:
        properties.write("drm_render_minor 128\n")
    card = tmp_path / "sys/class/drm/renderD128/device"
    card.mkdir(parents=True)
    (card / "mem_info_vram_total").write_text("206141652992\n")
    (card / "mem_info_vram_used").write_text("141652992\n")
    (amd,) = [gpu for gpu in hardware.read_gpus(tmp_path) if gpu.kind == "rocm"]
    assert (amd.memory_bytes, amd.free_bytes) == (206141652992, 206_000_000_000)


@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, 'CUDA_VISIBLE_DEVICES=""'),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 'CUDA_VISIBLE_DEVICES="-1"'),
    ],
)
def test_a_setting_that_hides_the_devices_is_named(
    environ: dict[str, str], setting: str | None
) -> None:
    assert hardware.hidden_gpus(environ) == setting
