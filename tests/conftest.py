"""What holds for every test, and for the processes that tests start."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.browser import Browser, browser
from tests.forked import ForkServer
from tests.in_one_process import GROUPS, group_of, pytest_xdist_make_scheduler  # noqa: F401
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from tests.live import Live

# No service measures or copies models while it is idle, except for the tests of that: the caches of
# tests are new each time.
os.environ["PADDOCK_PROFILE_S"] = "0"

# One thread for each model: tests run next to one another, and threads that wait in barriers for
# others which have no core take a third of the processor's time for nothing.
os.environ["PADDOCK_NUM_THREAD"] = "1"

# Nor do OpenMP's threads, which ggml has for all cores when it reorders weights: on two cores with
# AMX a load takes 0.57 s of a processor in place of 0.70; with others at work 0.7 in place of 1.3.
os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "passive"

# A shell may say that nothing compiled is kept. Then each process would compile all modules: to
# collect takes 14 s of a processor in place of 5, and a command a second more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# As on a machine that builds and tests: no run starts a service that outlives it. The tests of the
# local service take it away for the processes that they start.
os.environ["CI"] = "1"

# In memory, where there is room and programs may be started from it: a ledger's commit and an
# atomic write wait some milliseconds for a disk each, and a run makes dozens.
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and MEMORY.is_dir():
    facts = os.statvfs(MEMORY)
    room = min(facts.f_bavail * facts.f_frsize, psutil.virtual_memory().available // 2)
    if room > 2 << 30 and not facts.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Commands ask the service that runs, if one does; tests must not meet the one of their user, nor
# the local one that the user's last run has left for a quarter of an hour.
os.environ["PADDOCK_HOST"] = "127.0.0.1:1"
os.environ["PADDOCK_HOME"] = tempfile.mkdtemp(prefix="paddock-tests-")

# A test reads the ledger of an `up` with a home of its own, and copies ledgers to damage them. The
# tests of whose state counts take this away.
os.environ["PADDOCK_TRUST_STATE"] = tempfile.gettempdir()

# A shell starts what it has in the background with Ctrl-C ignored, and its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes longest begins first, so that no process is left alone with it at the end. Each of
# eight processes takes one in turn, twice: beside three that mostly wait for Prefect are five that
# compute.
LONGEST = (
    "runner/prefect/test_flow.py", "runner/core/test_kinds_of_change.py",
    "runner/schedule/test_up_killed.py", "test_examples.py",
    "runner/schedule/test_prefect_link.py",
    "engine/decoding/test_loop.py", "runner/core/test_histories.py",
    "runner/core/test_decisions_that_stand.py", "engine/openvino/test_contexts.py",
    "runner/schedule/test_up.py", "engine/llama/test_vision_families.py",
    "engine/tuning/test_tuned_copies.py", "runner/cli/test_mcp_server.py",
    "runner/test_strangers.py", "benchmarks/test_benchmarks.py", "runner/core/test_killed.py",
    "test_tutorial.py",
    "runner/review/test_page_in_a_browser.py", "runner/daemon/test_daemon_main.py",
    "soak/test_soak.py",
    "engine/backends/test_local_pool_suspects.py", "runner/schedule/test_run_processes.py",
    "steps/readers/test_ocr.py", "runner/prefect/test_own_server.py",
    "runner/core/test_typed_tables.py",
    "runner/cli/test_web_console.py", "engine/backends/test_local_pool.py",
    "runner/core/test_escalation.py", "engine/backends/test_local_pool_lost.py",
    "conformance/test_ollama_answers.py", "runner/dry_run/test_item_estimate.py",
    "conformance/test_honoured_fields.py", "conformance/test_go_client.py",
    "engine/backends/test_background_tuning.py", "pipelines/checking/test_values.py",
    "pipelines/checking/test_evidence.py", "runner/core/test_concurrency_groups.py",
    "pipelines/checking/test_judged.py",
    "runner/cli/test_console_actions.py",
    "steps/tools/test_mcp_client.py", "runner/core/test_run_context.py",
    "runner/cli/test_completion.py", "runner/test_swapped_files.py",
    "runner/watch/test_watch_loop.py", "engine/api/batches/test_batches.py",
    "steps/llm/test_confidence_model.py", "conformance/test_ollama_clients.py",
    "steps/readers/test_html.py",
    "runner/core/test_evidence_in_documents.py", "steps/readers/test_reader_pool.py",
    "runner/core/test_model_pools.py",
    "engine/backends/test_local_pool_fallback.py",
    "engine/profile/test_measure.py", "steps/readers/test_pdf_pictures.py", "test_wheel.py",
    "test_house.py", "conformance/test_openai_clients.py",
    "engine/backends/test_local_pool_requests.py", "runner/review/test_page.py",
    "runner/cli/test_accessibility.py", "conformance/test_fuzz.py",
    "engine/api/test_connection_deadlines.py", "runner/cli/commands/test_chat.py",
    "engine/api/test_server.py", "runner/test_cli.py", "runner/core/test_cleanup_vector_rows.py",
    "engine/llama/test_vision.py", "runner/core/test_interruptions.py",
)  # fmt: skip

# What a process starts once for all of its tests, within limits of its own: not in the first one's.
STARTED_ONCE = frozenset((
    "fork_server", "live", "prefect_api", "server", "shared_browser", "shared_servers",
    "shared_service",
))  # fmt: skip

# Tests that meet most of the errors that a person can cause: none may have stray marks.
WITH_MESSAGES = (
    "pipelines/", "runner/bind/", "steps/readers/", "steps/tools/", "steps/files/",
    "runner/test_cli.py", "runner/bind/test_permissions.py", "runner/test_settings.py",
    "runner/config/test_pipeline_secrets.py",
    "runner/cli/commands/test_history.py", "runner/cli/commands/test_test.py",
    "runner/cli/commands/test_model_commands.py", "runner/cli/commands/test_tools.py",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _messages_have_no_stray_marks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test one of whose messages ends in two full stops, or has a line's end written out."""
    name = request.path.relative_to(Path(__file__).parent).as_posix()
    if not name.startswith(WITH_MESSAGES):
        yield
        return
    from tests.strays import watch

    found = watch(monkeypatch)
    yield
    assert not found, found


def pytest_configure(config: pytest.Config) -> None:
    """Have every other process of a whole run collect from the end.

    In a new clone each process would compile all modules, in the same order; so each compiles half.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if int(number) % 2 and config.args == config.getini("testpaths"):
        here = Path(__file__).parent
        config.args[:] = sorted(map(str, [*here.glob("test_*.py"), *here.glob("*/")]), reverse=True)


def pytest_unconfigure() -> None:
    _end_servers()
    if readers := sys.modules.get("tests.fakes.readers"):
        readers.end_readers()
    shutil.rmtree(os.environ["PADDOCK_HOME"], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is collected out of garbage collections: 10,000 tests and all modules.

    They live until the end; looking through them took 2 of the 9 s of a processor that each of
    the processes needs to collect.
    """
    gc.disable()
    result = yield
    if "paddock.runner.api" in sys.modules:
        from tests.fakes.readers import keep_readers

        keep_readers()
    gc.freeze()
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, in the same order in every process; bound each test's time."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    here = Path(__file__).parent
    first_or_together = (*LONGEST, *(name.removeprefix("tests/") for name in GROUPS))
    if gone := [name for name in first_or_together if not (here / name).exists()]:
        raise pytest.UsageError(f"`LONGEST` or `WITH_PREFECT` names {gone}, which are not there")
    names = {item.path: item.path.relative_to(here).as_posix() for item in items}
    items.sort(key=lambda item: (rank.get(names[item.path], len(rank)), names[item.path]))
    for item in items:
        if item.get_closest_marker("timeout") is None:
            is_first_to_start = not STARTED_ONCE.isdisjoint(getattr(item, "fixturenames", ()))
            seconds = item.config.getoption("--timeout")
            item.add_marker(pytest.mark.timeout(seconds, func_only=is_first_to_start))
    if "hypothesis" in sys.modules:
        from hypothesis.internal.conjecture import providers

        # It would parse all of our modules for constants, 2 s of each process in a new clone, and
        # draw others where other tests have run before.
        providers._get_local_constants = lambda: providers._local_constants


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine: by its fixture `run_coroutine`, if it has one.

    Otherwise it gets an event loop of its own and fails if it hangs, which `--timeout` would end
    with the whole process.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if "run_coroutine" in pyfuncitem.funcargs:
        run: Any = pyfuncitem.funcargs["run_coroutine"]
        run(test)
        return True
    limit = pyfuncitem.get_closest_marker("timeout")
    assert limit is not None
    asyncio.run(asyncio.wait_for(test, 0.8 * limit.args[0]))
    return True


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End a group's servers with the group, where groups are kept together."""
    group = group_of(item.nodeid)
    is_last = nextitem is None or group_of(nextitem.nodeid) != group
    if group and is_last and "PYTEST_XDIST_WORKER" in os.environ:
        _end_servers()


def _end_servers() -> None:
    if servers := sys.modules.get("tests.prefect_server"):
        servers.end_shared()


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Yield a running service with the bundled models: starting one costs more than most tests."""
    from tests.live import live_service  # most tests need no server

    with live_service(tmp_path_factory.mktemp("live")) as service:
        yield service


@pytest.fixture(scope="module")
def live(shared_service: Live) -> Iterator[Live]:
    """Yield the shared service as a test module finds it: with no model but the bundled ones.

    A module whose tests count from nought, or need settings, starts one with `live_service`.
    """
    yield shared_service.since_now()
    shared_service.remove_models()


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Yield the process that those are forked from which runs of tests' own need."""
    server = ForkServer(tmp_path_factory.mktemp("forked"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    """Yield a Chromium that knows every name under `example` as this machine."""
    with browser("--host-resolver-rules=MAP *.example 127.0.0.1") as running:
        yield running


@pytest.fixture
def chromium(shared_browser: Browser) -> Iterator[Browser]:
    """Yield the shared browser; its pages are closed when the test ends."""
    yield shared_browser
    shared_browser.close_pages()


@pytest.fixture(scope="module")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a Prefect server that many tests share: it takes 12 s to start."""
    from paddock.runner.schedule import prefect_link
    from tests.prefect_server import server, shared

    @contextmanager
    def started() -> Iterator[str]:
        patient = pytest.MonkeyPatch()
        # With a slow disk it once answered nothing for a minute. `up` asks again; a test does not.
        patient.setattr(prefect_link, "ANSWER_S", PATIENCE_S)
        with server(tmp_path_factory.mktemp("prefect")) as url:
            yield url
        patient.undo()

    return shared("prefect", started)
