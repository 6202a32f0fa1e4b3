from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.llama.build import LlamaBuild
from paddock.engine.system.hardware import Gpu
from paddock.engine.workers import fallbacks
from paddock.runner.cli import doctor
from paddock.runner.cli.doctor import Finding, NativeBuild
from paddock.runner.settings import read_settings
from tests.fakes.http_server import by_path, serving

H200 = Gpu("cuda", "NVIDIA H200", 143771 * 1024**2, "9.0")
CPU_BUILD = NativeBuild(supports_gpu=False, features=("AVX2",))


def test_this_machine_is_examined(tmp_path: Path) -> None:
    settings = read_settings(environ={"PADDOCK_HOME": str(tmp_path)}, home=tmp_path)
    found = doctor.examine(settings, {})
    about = {finding.about for finding in found}
    assert {"python", "processor", "memory", "llama.cpp", "models disk", "state"} <= about
    assert doctor.findings_exit_status(found) == 0
    native = next(finding for finding in found if finding.about == "llama.cpp")
    assert native.level == "ok"


def test_a_processor_build_that_meets_a_device_is_loud_about_it() -> None:
    found = list(doctor.gpu_findings([H200], CPU_BUILD, {}))
    assert found[1] == Finding(
        "graphics",
        "warning",
        "NVIDIA H200, 150.8 GB, compute capability 9.0 IS NOT USED: llama-cpp-python was built "
        "for the processor only",
        "Build it for the device, which needs the vendor's toolkit:\n"
        'CXXFLAGS="-fno-dse" CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall '
        "--no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
    )
    assert doctor.findings_exit_status(found) == 0


def test_device_memory_driver_and_build_are_named() -> None:
    mib = 1024**2
    gpu = Gpu("cuda", "NVIDIA H200", 143771 * mib, "9.0", 143156 * mib, "GPU-7c1f0a2e", "570.86.10")
    native = NativeBuild(supports_gpu=True, features=("CUDA",), backends=("cuda",))
    build, device = doctor.gpu_findings([gpu], native, {})
    assert build.text.endswith(", built for CUDA; CUDA")
    assert device == Finding(
        "graphics",
        "ok",
        "NVIDIA H200, 150.8 GB, 150.1 GB free, compute capability 9.0, driver 570.86.10",
    )


def test_a_build_for_the_device_that_does_not_find_it_is_told_apart_with_its_reason() -> None:
    why = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
    native = NativeBuild(supports_gpu=False, features=(), backends=("cuda",), why_no_device=why)
    remedy = (
        "Check that the vendor's driver works and is new enough for the build. "
        "A container needs its devices, as with `docker run --gpus all`."
    )
    found = list(doctor.gpu_findings([H200], native, {}))
    assert found[1] == Finding(
        "graphics",
        "warning",
        "NVIDIA H200, 150.8 GB, compute capability 9.0 IS NOT USED: llama-cpp-python was built "
        f"for CUDA, but it finds no usable device: {why}",
        remedy,
    )
    nothing = list(doctor.gpu_findings([], native, {}))
    text = f"no device found ({why}); models run on the processor"
    assert nothing[1:] == [Finding("graphics", "warning", text, remedy)]
    hidden = list(doctor.gpu_findings([H200], native, {"CUDA_VISIBLE_DEVICES": ""}))
    assert [finding.level for finding in hidden] == ["ok", "ok", "warning"]


def test_with_our_libraries_a_device_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = LlamaBuild("paddock-llama", tmp_path, "0.3.36", version="0.3.36")
    monkeypatch.setattr(doctor, "find_build", lambda environ: build)
    found = list(doctor.gpu_findings([H200], CPU_BUILD, {}))
    assert "paddock-llama was built for the processor only" in found[1].text
    assert found[1].remedy == "pip install 'paddock-llama[cuda]==0.3.36'"


def test_a_build_for_cuda_is_never_replaced_by_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("libllama.so", "libggml-cuda.so"):
        (tmp_path / name).touch()
    build = LlamaBuild("llama-cpp-python", tmp_path, "0.3.36")
    for module in (doctor, fallbacks):
        monkeypatch.setattr(module, "find_build", lambda *_: build)
    (found,) = doctor.gpu_findings([], "libcublas.so.13: cannot open shared object file", {})
    assert found.remedy.startswith("Install what it names, or build it again:\nCMAKE_ARGS=")
    assert "-DGGML_CUDA=on" in found.remedy


def test_a_llama_that_does_not_start_is_a_fault() -> None:
    found = list(doctor.gpu_findings([], "libcuda.so.1: cannot open shared object file", {}))
    assert doctor.findings_exit_status(found) == 1
    assert found[0].text.endswith("cannot be used: libcuda.so.1: cannot open shared object file")


@pytest.fixture
def server() -> Iterator[str]:
    """A server on this machine that answers as Prefect's does."""
    healthy = (200, b"true")
    with serving(by_path(api__health=healthy, v1__models=healthy)) as server:
        yield server.host


def test_a_prefect_server_that_answers_is_found_and_no_password_shown(server: str) -> None:
    found = list(doctor.prefect_findings({"PREFECT_API_URL": f"http://me:secret@{server}/api"}))
    assert found == [Finding("prefect", "ok", f"http://{server}/api answers")]


def test_warnings_stand_out_with_what_to_do_below() -> None:
    text = doctor.findings_text(
        [Finding("a", "ok", "fine"), Finding("bb", "warning", "bad\x1b", "Do it.")]
    )
    assert text == ("ok       a   fine\nWARNING  bb  bad\\x1b\n             Do it.")
