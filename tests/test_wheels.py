"""The wheels with llama.cpp inside: how they are made, and that they need no compiler.

What is compiled takes minutes, so it is tried only by `poe test-wheels`, on what `poe wheels` made.
"""

import base64
import doctest
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

HOUSE = Path(__file__).resolve().parents[1]
SCRIPTS = HOUSE / ".github" / "wheels"
RELEASE = HOUSE / ".github" / "workflows" / "release.yml"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the scripts as `python .github/wheels/build.py` does."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def test_examples_in_the_scripts_are_true(scripts: Any) -> None:
    for name in ("amx", "build", "packing"):
        results = doctest.testmod(scripts(name))
        assert results.attempted
        assert results.failed == 0


# AMX

# As llama.cpp's mmq.cpp has it.
TILES = """
#include <immintrin.h>
#include <cstdint>
struct tiles {
    uint8_t palette = 0, start = 0, reserved[14] = {0};
    uint16_t colsb[16] = {0};
    uint8_t rows[16] = {0};
};
void configure() {
    alignas(64) tiles tile = {};
    tile.palette = 1;
    tile.rows[0] = 8;  tile.colsb[0] = 64; tile.rows[1] = 8;  tile.colsb[1] = 64;
    tile.rows[2] = 16; tile.colsb[2] = 32; tile.rows[3] = 16; tile.colsb[3] = 32;
    tile.rows[4] = 16; tile.colsb[4] = 64; tile.rows[5] = 16; tile.colsb[5] = 64;
    tile.rows[6] = 16; tile.colsb[6] = 64; tile.rows[7] = 16; tile.colsb[7] = 64;
    _tile_loadconfig(&tile);
}
"""


@pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("objdump") is None,
    reason="code for AMX was NOT examined: g++ or objdump is missing",
)
def test_a_tile_configuration_that_is_not_stored_whole_is_found(
    scripts: Any, tmp_path: Path
) -> None:
    amx = scripts("amx")
    source = tmp_path / "tiles.cpp"
    source.write_text(TILES)
    missing = []
    for flags in ([], ["-fno-dse"]):
        target = tmp_path / "tiles.o"
        options = ["-O3", "-mavx512f", "-mamx-tile", *flags]
        command = ["g++", *options, "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"code for AMX was NOT examined: {done.stderr.splitlines()[0]}")
        missing.append(amx.missing_bytes(amx.disassembly(target)))
    assert missing[1] == [0]
    compiler = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True)
    if compiler.stdout.strip().startswith("12"):
        assert missing[0][0] > 0, "GCC 12 drops stores; if it does not, the flag can go"


# What a wheel holds


def small(packing: Any, **more: Any) -> Any:
    return packing.Wheel(
        "a-b", "1.0", "py3-none-any", "A test", "MIT", {"LICENSE": b"MIT"},
        {"a_b/__init__.py": b"", "a_b/lib/liba.so": b"\x7fELF"},
        requires=("c==1",), extras={"d": "e==1"}, **more,
    )  # fmt: skip


def test_a_wheel_is_the_same_each_time_and_lists_what_it_holds(
    scripts: Any, tmp_path: Path
) -> None:
    packing = scripts("packing")
    first = packing.write(small(packing), tmp_path / "1")
    second = packing.write(small(packing), tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    assert first.name == "a_b-1.0-py3-none-any.whl"
    with zipfile.ZipFile(first) as archive:
        record = archive.read("a_b-1.0.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in record} == {*archive.namelist()}
        for line in record[:-1]:
            name, digest, size = line.split(",")
            data = archive.read(name)
            assert int(size) == len(data)
            told = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert digest == f"sha256={told}"
        is_executable = archive.getinfo("a_b/lib/liba.so").external_attr >> 16 & 0o111
        assert is_executable
        lines = archive.read("a_b-1.0.dist-info/METADATA").decode().splitlines()
    assert {"Name: a-b", "Requires-Dist: c==1", 'Requires-Dist: e==1; extra == "d"'} <= {*lines}


def test_the_bindings_alone_ask_for_our_libraries(scripts: Any, tmp_path: Path) -> None:
    build, packing = scripts("build"), scripts("packing")
    source = tmp_path / "src"
    for name in ("__init__.py", "server/app.py", "lib/libllama.so", "__pycache__/x.pyc"):
        (source / "llama_cpp" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "llama_cpp" / name).write_text("x")
    (source / "LICENSE.md").write_text("MIT")
    told = "Name: llama_cpp_python\nVersion: 0.3.36\nRequires-Dist: numpy\n\nVersion: of the text\n"
    (source / "PKG-INFO").write_text(told)
    shop = build.Workshop(tmp_path, tmp_path / "dist", "0.3.36")
    path = packing.write(build.bindings_alone(shop), shop.dist)
    # pip takes the highest version, and a local one is higher than the sdist of the same number.
    assert path.name == "llama_cpp_python-0.3.36+nolibs-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        inside = {name for name in archive.namelist() if name.startswith("llama_cpp/")}
        lines = archive.read("llama_cpp_python-0.3.36+nolibs.dist-info/METADATA").decode()
    assert inside == {"llama_cpp/__init__.py", "llama_cpp/server/app.py"}
    assert lines == (
        "Name: llama_cpp_python\nVersion: 0.3.36+nolibs\nRequires-Dist: paddock-llama==0.3.36.*\n"
        "Requires-Dist: numpy\n\nVersion: of the text\n"
    )


def test_a_tag_names_the_oldest_glibc_that_has_all_symbols_and_strangers_are_refused(
    scripts: Any,
) -> None:
    build, packing = scripts("build"), scripts("packing")
    assert build.oldest_bindings() in build.SDIST_SHA256
    for symbols, minor in (
        ("GLIBC_2.14 GLIBC_2.17", 17), ("GLIBC_2.29 GLIBCXX_3.4.25", 29),
        ("GLIBC_2.29 GLIBCXX_3.4.30", 35), ("GLIBC_2.38 GLIBCXX_3.4.21", 38),
    ):  # fmt: skip
        assert packing.least_glibc(symbols.split()) == minor
    with pytest.raises(SystemExit, match=r"GLIBCXX_3\.4\.99: no glibc is known"):
        packing.least_glibc(["GLIBCXX_3.4.99"])
    sections = {"liba.so": "NEEDED libb.so\nNEEDED libc.so.6", "libb.so": "NEEDED libomp.so.5"}
    assert packing.strangers(sections) == ["libb.so needs libomp.so.5"]
    assert packing.strangers(sections, ["libomp.so.5"]) == []


def test_what_this_machine_cannot_build_is_said_and_is_a_fault_where_it_was_asked_for(
    scripts: Any, tmp_path: Path
) -> None:
    build = scripts("build")
    header = (
        "#define VK_HEADER_VERSION 309\n"
        "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 4, VK_HEADER_VERSION)\n"
    )
    assert (build.vulkan_version(header), build.vulkan_version("")) == ((1, 4, 309), None)
    shop = build.Workshop(tmp_path, tmp_path, "0.3.36", vulkan_headers=tmp_path)
    with pytest.raises(build.CannotBuild, match=r"glslc|headers"):
        build.backend(shop, "vulkan")


# The workflow


def test_the_workflow_tries_on_every_system_what_it_publishes_by_scripts_that_exist(
    scripts: Any,
) -> None:
    jobs: dict[str, Any] = yaml.safe_load(RELEASE.read_text("utf-8"))["jobs"]
    text = RELEASE.read_text("utf-8")
    for job in jobs.values():
        for step in job["steps"]:
            line = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
            subprocess.run(["bash", "-n", "-c", line], check=True)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
            for path in re.findall(r"(?:\.github|examples)/[\w./-]+\.py|examples/deploy/\w+", line):
                assert (HOUSE / path).is_file(), line
    tries = {name for name in jobs if name.startswith("try-")}
    assert {*jobs["release"]["needs"]} == tries
    assert {need for job in jobs.values() for need in job.get("needs", [])} <= {*jobs}
    assert "-slim" in jobs["try-linux"]["container"], "an image without a compiler"
    assert not re.search(r"container: [\w-]+\.\S+/", text), "no registry is named"
    runners = ("ubuntu-latest", "ubuntu-24.04-arm", "macos-15", "windows-latest")
    assert all(runner in text for runner in runners)
    build = scripts("build")
    assert all(name in text for name in ("python", "libraries", *build.BACKENDS, *build.EXTRAS))


# The wheels themselves

DIST = Path(os.environ.get("PADDOCK_TEST_WHEELS", ""))
built = pytest.mark.skipif(
    "PADDOCK_TEST_WHEELS" not in os.environ,
    reason="the wheels with llama.cpp were NOT tried: `poe wheels` builds, `poe test-wheels` tries",
)


def wheel(pattern: str) -> Path:
    """Return the one wheel of that name, or fail: `poe wheels` makes it."""
    found = sorted(DIST.resolve().glob(pattern))
    assert found, f"{DIST.resolve()} has no {pattern}: run `poe wheels` first"
    return found[-1]


@built
def test_the_libraries_hold_what_they_need_and_their_licences(scripts: Any, tmp_path: Path) -> None:
    path = wheel(f"paddock_llama-*_{os.uname().machine}.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    libraries = {
        file.name: scripts("packing").dynamic_section(file)
        for file in (tmp_path / "paddock_llama" / "lib").iterdir()
    }
    assert {"libllama.so", "libmtmd.so", "libggml.so", "libggml-base.so"} <= {*libraries}
    assert scripts("packing").strangers(libraries) == []
    minor = scripts("packing").least_glibc(libraries.values())
    assert f"-manylinux_2_{minor}_" in path.name
    licences = {name.rpartition("/")[2] for name in names if "/licenses/" in name}
    assert {"llama.cpp-LICENSE", "LICENSE-jsonhpp"} <= licences
    assert ("GCC-RUNTIME.txt" in licences) == ("libgomp.so.1" in libraries)


@built
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="AMX is of x86-64 alone")
def test_amx_tiles_are_configured_whole(scripts: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel("paddock_llama-*_x86_64.whl")) as archive:
        name = "paddock_llama/lib/libggml-cpu-sapphirerapids.so"
        library = Path(archive.extract(name, tmp_path))
    missing = scripts("amx").missing_bytes(scripts("amx").disassembly(library))
    assert missing
    assert {*missing} == {0}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, as a release's page is; yields its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@built
@pytest.mark.timeout(900)  # pip installs the wheels and all that they need
def test_from_a_releases_page_it_is_installed_without_a_compiler_and_does_the_first_run(
    tmp_path: Path,
) -> None:
    for pattern in ("paddock_llm-*.whl", "llama_cpp_python-*+nolibs-*.whl", "paddock_llama-*.whl"):
        shutil.copy(wheel(pattern), tmp_path)
    with served(tmp_path) as address:
        page = [str(SCRIPTS / "build.py"), "--out", str(tmp_path), "page", address.rstrip("/")]
        subprocess.run([sys.executable, *page], check=True)
        command = [sys.executable, str(SCRIPTS / "tryout.py"), address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    version_of_ours = version("llama-cpp-python").partition("+")[0]
    assert f"paddock-llama {version_of_ours}" in done.stdout
    assert "on this processor as" in done.stdout
