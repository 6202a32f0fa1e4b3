"""Which files of tests run in one process, next to one another, and collected when it runs them.

Each process of pytest-xdist collects everything: 7.4 s of a processor for 11,800 tests, in eight
processes a minute. With `--dist loadfile` each collects the files that it runs, as it runs them.
"""

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

# Files whose tests ask one Prefect server run in one process, which starts it once: a start takes
# 4 s of a processor, and what waits for it the rest of 12. Groups, so that none is the end.
WITH_PREFECT = {
    "up": (
        "runner/schedule/test_up_killed.py", "runner/schedule/test_up_reviews.py",
        "runner/schedule/test_up.py", "runner/test_no_secret_in_a_command_line.py",
        "runner/daemon/test_prefect_client.py",
    ),
    "flows": (
        "runner/prefect/test_flow.py", "runner/prefect/test_states_by_hand.py",
        "runner/prefect/test_pipeline_flow.py",
    ),
    "link": (
        "runner/schedule/test_prefect_link.py", "runner/workers/test_ordered_run.py",
        "runner/daemon/test_prefect_retention.py", "runner/core/test_documents_of_buckets.py",
        "runner/core/test_mails_of_a_server.py",
    ),
}  # fmt: skip

GROUPS = {f"tests/{file}": name for name, files in WITH_PREFECT.items() for file in files}


def group_of(nodeid: str) -> str | None:
    return GROUPS.get(nodeid.partition("::")[0])


BEGUN = Path(".pytest_cache/begun").absolute()
"""Names of the tests that each file has begun: it goes on behind one that ended its process."""


def _list_of_begun(nodeid: str) -> Path:
    return BEGUN / nodeid.partition("::")[0].replace("/", "%")


def begun_tests(nodeid: str) -> list[str]:
    names = _list_of_begun(nodeid)
    return names.read_text("utf-8").splitlines() if names.exists() else []


class FileOfTests(pytest.Item):
    """A file of tests that is collected when it is run, as an item of pytest-xdist."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.add_marker(pytest.mark.timeout(0))  # each of its tests has a limit of its own

    def collect(self) -> list[pytest.Item]:
        """Return its tests, without those that a process which ended has begun."""
        gc.disable()
        module = pytest.Module.from_parent(self.parent, path=self.path)
        items = list(self.session.genitems(module))
        hook = self.config.hook
        hook.pytest_collection_modifyitems(session=self.session, config=self.config, items=items)
        gc.enable()
        begun = {*begun_tests(self.nodeid)}
        return [item for item in items if item.nodeid not in begun]

    def run(self, nextitem: pytest.Item | None) -> None:
        place = self.session.items.index(self)
        items = self.collect()
        with _list_of_begun(self.nodeid).open("a", encoding="utf-8") as names:
            for item, following in zip(items, [*items[1:], nextitem], strict=False):
                print(item.nodeid, file=names, flush=True)
                self.session.items[place] = item  # pytest-xdist expects the reports of this item
                self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.session.shouldfail or self.session.shouldstop:
                    break
        self.session.items[place] = self

    def runtest(self) -> None:
        raise AssertionError("`run` runs its tests")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Have a process collect each file when it runs it, where whole files are run."""
    option, arguments = node.config.option, node.config.args
    is_part = option.keyword or option.markexpr or any("::" in one for one in arguments)
    node.workerinput["collects_late"] = option.dist == "loadfile" and not is_part


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> FileOfTests | None:
    if not getattr(parent.config, "workerinput", {}).get("collects_late"):
        return None
    nodeid = module_path.relative_to(parent.config.rootpath).as_posix()
    return FileOfTests.from_parent(parent, name=module_path.name, nodeid=nodeid, path=module_path)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if isinstance(item, FileOfTests):
        item.run(nextitem)
        return True
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file in one process, as `--dist loadfile` does, and those with Prefect together."""
    if config.getvalue("dist") != "loadfile":
        return None
    shutil.rmtree(BEGUN, ignore_errors=True)
    BEGUN.mkdir(parents=True)
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid) or str(super()._split_scope(nodeid))

        def _reschedule(self, node: Any) -> None:
            """Give a process one more file than it runs: it begins one when it knows the next."""
            if self._pending_of(self.assigned_work[node]) < 2 or not self.workqueue:
                super()._reschedule(node)

        def remove_node(self, node: Any) -> str | None:
            """Count a test that ended its process as done: pytest-xdist 3.8 starts it again."""
            for unit in self.assigned_work[node].values():
                for nodeid, is_done in unit.items():
                    if not is_done:
                        begun = begun_tests(nodeid)
                        unit[nodeid] = not begun
                        super().remove_node(node)
                        return begun[-1] if begun else nodeid
            return None

    return Together(config, log)
