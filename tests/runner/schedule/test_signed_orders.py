"""Which runs of Prefect's queue are carried out, and with what."""

from pathlib import Path
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.schedule.signed_orders import NotAdmitted, admitted_order, unsigned_order
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.settings import Settings
from paddock.runner.workers.flow_order import order_of

SIGNER = Signer(b"the key of these tests")
PIPELINE = """\
name: letters
on: {schedule: [{cron: "0 6 * * *"}]}
inputs:
  inbox: {type: dir, default: ./inbox}
  style: {type: str, default: short}
steps: [{id: docs, uses: files.scan, with: {root: "{{ inputs.inbox }}"}}]
"""
OTHERS = (
    "Paddock did not put it into the queue, and on a Prefect server that others use it may have no "
    "parameters."
)


@pytest.fixture
def letters(tmp_path: Path) -> TriggeredPipeline:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    made = read_triggered_pipeline(
        tmp_path / "p.yaml", PIPELINE, Settings(PoolSettings(), tmp_path)
    )
    assert made is not None
    return made


def refused(
    letters: TriggeredPipeline,
    parameters: dict[str, Any],
    key: str = "",
    *,
    is_own_server: bool = True,
) -> str:
    with pytest.raises(NotAdmitted) as error:
        admitted_order(parameters, key, letters, None if is_own_server else SIGNER)
    return str(error.value)


@pytest.mark.parametrize("is_own_server", [True, False])
def test_what_paddock_put_into_the_queue_is_carried_out_as_it_was_put_there(
    letters: TriggeredPipeline, is_own_server: bool
) -> None:
    expected = unsigned_order(letters.key) | {"inputs": {"style": "long"}, "trigger": "webhook /x"}
    signed = SIGNER.signed(expected, "key")
    assert admitted_order(signed, "key", letters, None if is_own_server else SIGNER) == expected
    assert refused(letters, signed, "another key", is_own_server=False) == OTHERS


@pytest.mark.parametrize("is_own_server", [True, False])
def test_a_path_of_its_own_is_refused_signed_or_not(
    letters: TriggeredPipeline, is_own_server: bool
) -> None:
    for path in ("/tmp/mine.yaml", "", None, [letters.key]):
        theirs = unsigned_order(letters.key) | {"path": path}
        for parameters in (theirs, SIGNER.signed(theirs, "key")):
            reason = refused(letters, parameters, "key", is_own_server=is_own_server)
            assert reason == "its path is not that of the deployed pipeline."


@pytest.mark.parametrize(
    "extra",
    [
        {"inputs": {"style": "long"}}, {"retry_failed": True}, {"share": 1}, {"job": "x"},
        {"trigger": "watch inbox"}, {"trigger": "schedule 0 7 * * *", "signature": "0"},
    ],
)  # fmt: skip
def test_on_a_server_of_others_only_the_deployments_own_parameters_count(
    letters: TriggeredPipeline, extra: dict[str, Any]
) -> None:
    deployed = unsigned_order(letters.key)
    assert admitted_order(deployed, "", letters, SIGNER) == deployed
    assert refused(letters, deployed | extra, is_own_server=False) == OTHERS


@pytest.mark.parametrize("is_own_server", [True, False])
def test_a_run_of_a_schedule_is_not_lost_with_the_key_that_signed_it(
    letters: TriggeredPipeline, is_own_server: bool
) -> None:
    (timed,) = letters.schedules
    planned = unsigned_order(letters.key) | {"trigger": timed.key}
    for parameters in (planned, Signer(b"an earlier key").signed(planned, "key")):
        found = admitted_order(parameters, "key", letters, None if is_own_server else SIGNER)
        assert found == planned


def test_what_is_started_on_our_own_page_has_its_inputs_checked(letters: TriggeredPipeline) -> None:
    def given(**inputs: Any) -> dict[str, Any]:
        return unsigned_order(letters.key) | {"inputs": inputs}

    def taken(parameters: dict[str, Any]) -> dict[str, Any]:
        return admitted_order(parameters, "", letters, None)

    assert taken(given(style="long"))["inputs"] == {"style": "long"}
    inside = str(letters.file.parent / "inbox")
    assert taken(given(inbox="./inbox"))["inputs"] == {"inbox": inside}
    for place in ("/etc", "../..", "link"):
        reason = refused(letters, given(inbox=place))
        assert reason == "input 'inbox' leads outside the pipeline's folder."
    assert "'colour'" in refused(letters, given(colour="red"))
    odd = order_of({"Paddock": ["style"]})
    assert refused(letters, odd) == "the pipeline has no input 'Paddock'."
    shown = {"style": "short", "inbox": str(letters.file.parent / "./inbox"), "Paddock": None}
    assert taken(order_of(shown))["inputs"] == {"style": "short", "inbox": inside}


@pytest.mark.parametrize(
    "odd", [{"color": "red"}, {"attempt": "often"}, {"calls": "all"}, {"calls": ["all"]}]
)
def test_on_our_own_server_an_order_must_have_the_form_of_ours(
    letters: TriggeredPipeline, odd: dict[str, Any]
) -> None:
    """Who has its password is this user."""
    ours = unsigned_order(letters.key) | {"trigger": "watch inbox", "inputs": {"inbox": "/etc"}}
    assert admitted_order(ours, "", letters, None) == ours
    assert refused(letters, ours | odd).startswith("it is no order of Paddock's: ")


def test_of_a_form_of_our_own_page_only_inputs_and_a_retry_count(
    letters: TriggeredPipeline,
) -> None:
    given = unsigned_order(letters.key) | {"attempt": 7, "share": 3, "retry_failed": True}
    expected = unsigned_order(letters.key) | {"retry_failed": True}
    assert admitted_order(given, "", letters, None) == expected
