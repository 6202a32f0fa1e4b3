"""Which files of tests run in one process, next to one another."""

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file in one process, as `--dist loadfile` does, and those with Prefect together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid) or str(super()._split_scope(nodeid))

        def _reschedule(self, node: Any) -> None:
            """Assign at least two tests to a process, or tell it that no file follows.

            It begins a test when it knows what follows. pytest-xdist 3.8 gives one file at a time,
            and is asked again when a test is done.
            """
            super()._reschedule(node)
            while not node.shutting_down:
                if not self.workqueue:
                    node.shutdown()
                elif self._pending_of(self.assigned_work[node]) < 2:
                    super()._reschedule(node)
                else:
                    break

        def remove_node(self, node: Any) -> str | None:
            """Count a test that ended its process as done, and drop the files that it has done.

            pytest-xdist 3.8 starts the test again, and gives the files to others: where none has
            more to do, these wait for ever.
            """
            work, ended_by = self.assigned_work[node], None
            for scope, unit in list(work.items()):
                for nodeid, is_done in unit.items():
                    if not is_done:
                        unit[nodeid], ended_by = True, str(nodeid)
                        break
                if all(unit.values()):
                    del work[scope]
                if ended_by:
                    break
            super().remove_node(node)
            return ended_by

    return Together(config, log)
