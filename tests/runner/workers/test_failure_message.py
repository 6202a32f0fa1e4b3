"""What is said where a job was asked for when a machine could not do its share."""

from paddock.engine.errors import NotServed
from paddock.runner.bind.trust.permissions import NotPermitted, PermissionNeed
from paddock.runner.workers.delegation import failure_message


def test_a_worker_that_does_not_allow_something_is_named_and_where_it_is_allowed() -> None:
    needs = [
        PermissionNeed("secrets", "read the environment variable TOKEN"),
        PermissionNeed("run", "run `sh -c date`"),
    ]
    assert failure_message(NotPermitted(needs), "machine2") == (
        "The worker on machine2 does not allow what the pipeline wants to do: read the "
        "environment variable TOKEN ('secrets'); run `sh -c date` ('run'). Each machine allows for "
        "itself: start `paddock worker --allow run,secrets` there, or write "
        '`allow = "run,secrets"` into its ~/.config/paddock/paddock.toml.'
    )


def test_any_other_error_says_on_which_machine_it_was() -> None:
    error = NotServed("qwen3", ["m"], "http://10.0.0.2:11434")
    assert failure_message(error, "machine2") == f"on machine2: {error}"
