"""Tables of keys for what starts and bounds runs: `on`, `concurrency`, `budget`.

Schedules (cron), watched folders, webhooks and notifications are under `on`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from .errors import MustBe
from .expressions import Value
from .keys import Keys, TextList
from .quantities import Percentage, Seconds, Tokens

_CRON_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_REFERENCE_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_TEMPLATE_MARK = re.compile("\0([0-9]+)\0")
_TIME_OF_DAY = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
MOST_DELETED = 0.5
"""The share of a folder's files that may vanish at once before a person must confirm."""


def _cron(given: str) -> str:
    if given in ("@hourly", "@daily", "@weekly", "@monthly", "@yearly"):
        return given
    fields = given.split()
    if len(fields) != len(_CRON_FIELDS):
        example = "such as '0 6 * * 1-5' (minute, hour, day, month, day of the week)"
        raise MustBe(f"must have five fields {example}; this has {len(fields)}")
    for n, field in enumerate(fields):
        try:
            CronSim(" ".join([*"*" * n, field, *"*" * (4 - n)]), _REFERENCE_DAY)
        except CronSimError:
            what = f"'{field}' is not a valid {_CRON_FIELDS[n]}"
            raise MustBe(f"must be a cron expression; {what}") from None
    return given


def is_ever_due(cron: str) -> bool:
    """Return whether a cron expression comes.

    >>> is_ever_due("0 6 * * 1-5"), is_ever_due("0 0 31 2 *")
    (True, False)
    """
    try:
        return cron.startswith("@") or bool(next(CronSim(cron, _REFERENCE_DAY)))
    except (CronSimError, StopIteration):
        return False


def _values(given: dict[str, Any]) -> dict[str, Any]:
    if Value.scan(given)[0].expressions:
        raise MustBe("must be values: at a time there is nothing that an expression could read")
    return given


def _timezone(given: str) -> str:
    try:
        ZoneInfo(given)
    except (KeyError, ValueError, OSError) as error:
        raise MustBe("must be a time zone such as Europe/Paris or UTC") from error
    return given


def _window(given: str, known: ValidationInfo) -> str:
    times, _, zone = given.partition(" ")
    if not re.fullmatch(f"{_TIME_OF_DAY}-{_TIME_OF_DAY}", times):
        raise MustBe("must be two times such as '22:00-07:00'")
    zones = {timed.timezone or "this machine's" for timed in known.data.get("schedule", ())}
    if len(zones) > 1 and not zone:
        raise MustBe(
            f"must name its time zone, such as '{times} Europe/Paris': the schedules are in"
            f" several ({', '.join(sorted(zones))})"
        )
    return f"{times} {_timezone(zone)}" if zone else times


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, dict) else given


class TriggerKeys(Keys):
    """An entry of a trigger that plans know."""

    has_callers: ClassVar[bool] = False
    """Its inputs come from elsewhere, by expressions."""

    @property
    def given_inputs(self) -> dict[str, Any]:
        return getattr(self, "inputs", {})


class ScheduleKeys(TriggerKeys):
    """A time at which the pipeline runs."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        description="Five fields: minute, hour, day, month, day of the week.",
        examples=["0 6 * * 1-5"],
    )
    timezone: Annotated[str, AfterValidator(_timezone)] | None = Field(
        None, description="The zone in which `cron` is read.", examples=["Europe/Paris"]
    )
    catch_up: Literal["none", "latest", "all"] = Field(
        "latest", description="Which missed runs are made up for."
    )
    inputs: Annotated[dict[str, Any], AfterValidator(_values)] = Field(
        {}, description="Inputs of its runs, as `-i` gives them; folders below the pipeline's own."
    )

    @property
    def key(self) -> str:
        """Name it, as long as it is the same schedule.

        >>> ScheduleKeys(cron="0 6 * * *", timezone="Europe/Paris").key
        'schedule 0 6 * * * Europe/Paris'
        """
        inputs = json.dumps(self.inputs, sort_keys=True) if self.inputs else None
        return " ".join(filter(None, ("schedule", self.cron, self.timezone, inputs)))


class DeletesKeys(Keys):
    """What happens to the outputs of deleted files."""

    prune: bool = Field(False, description="Remove the outputs of a deleted file.")
    most: Percentage = Field(
        f"{MOST_DELETED:.0%}",
        validate_default=True,
        description="The share of files that may vanish at once; above it a person must confirm.",
        examples=["50%"],
    )


_DELETES = {"keep": {"prune": False}, "prune": {"prune": True}}


def _deletes_from_word(given: Any) -> Any:
    """Expand `keep` and `prune` to their tables."""
    if isinstance(given, str) and given not in _DELETES:
        raise MustBe("must be keep, prune, or a table such as {prune: true, most: 50%}")
    return _DELETES[given] if isinstance(given, str) else given


def _word_schema(schema: dict[str, Any]) -> None:
    """Allow a word in place of the table, in the JSON Schema."""
    table = {"$ref": schema.pop("$ref")} if "$ref" in schema else schema.pop("allOf")[0]
    schema["anyOf"] = [{"type": "string", "enum": [*_DELETES]}, table]


class WatchKeys(TriggerKeys):
    """A folder whose changes start the pipeline."""

    path: str = Field(min_length=1, description="The folder.")
    include: TextList = Field(["**/*"], description="Globs of files to watch.")
    exclude: TextList = Field([], description="Globs of files to ignore.")
    settle: Seconds = Field(2.0, description="How long a file must be unchanged before it is read.")
    batch: Seconds = Field(10.0, description="How long changes are collected for one run.")
    reconcile: Seconds = Field(600.0, description="How often the whole folder is listed.")
    deletes: Annotated[DeletesKeys, BeforeValidator(_deletes_from_word)] = Field(
        "keep",
        validate_default=True,
        description="What happens to the outputs of a deleted file.",
        json_schema_extra=_word_schema,
    )
    claim: Literal["none", "move"] = Field(
        "none", description="`move`: a hot folder with processing/, done/ and failed/."
    )


class WebhookKeys(TriggerKeys):
    """An HTTP path; each call of it starts the pipeline."""

    has_callers = True

    path: str = Field(pattern=r"^/", description="The path.", examples=["/digest"])
    secret: str | None = Field(None, description="The key that callers sign with.")
    inputs: dict[str, Any] = Field({}, description="Inputs, as expressions over `payload`.")


PLANNED_TRIGGERS: Mapping[str, type[TriggerKeys]] = {
    "schedule": ScheduleKeys,
    "watch": WatchKeys,
    "webhook": WebhookKeys,
}
"""Those of which a plan knows the inputs, the times, or the folders."""


class NotifyKeys(Keys):
    """A notification about the end of a run."""

    when: list[Literal["failed", "quarantined", "recovered", "waiting"]] = Field(
        min_length=1,
        description="Which ends are reported; `waiting`: that people have to decide on answers.",
    )
    webhook: str | None = Field(None, description="A URL to post to.")
    email: str | None = Field(None, description="A mail address.")
    service: str | None = Field(
        None,
        description="The address of a service as Apprise writes it: Slack, Teams, Telegram, ntfy …",
        examples=["ntfy://ntfy.sh/topic", "tgram://{{ secrets.bot }}/12345"],
    )
    command: list[str] | str | None = Field(None, description="A command to run.")

    @model_validator(mode="after")
    def _one_way(self) -> NotifyKeys:
        ways = self.webhook, self.email, self.service, self.command
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give exactly one of `webhook`, `email`, `service` and `command`")
        return self

    def command_words(self) -> list[str]:
        """Split `command` as a shell would, without expansion; a template stays within its word.

        >>> keys = NotifyKeys(when=["failed"], command="tell --to {{ inputs.team }} 'a b'")
        >>> keys.command_words()
        ['tell', '--to', '{{ inputs.team }}', 'a b']

        Raises:
            ValueError: a quote is not closed, or there is no command.
        """
        words = self.command or []
        if isinstance(words, str):
            templates = _TEMPLATE.findall(words)
            numbers = iter(range(len(templates)))
            marked = shlex.split(_TEMPLATE.sub(lambda _: f"\0{next(numbers)}\0", words))
            words = [_TEMPLATE_MARK.sub(lambda mark: templates[int(mark[1])], w) for w in marked]
        if not words or not words[0]:
            raise ValueError("it is empty")
        return words


class OnKeys(Keys):
    """What starts runs automatically. Other keys are triggers that no plan knows."""

    model_config = ConfigDict(extra="allow")

    schedule: Annotated[list[ScheduleKeys], BeforeValidator(_as_list)] = Field(
        [], description="When it runs."
    )
    watch: Annotated[list[WatchKeys], BeforeValidator(_as_list)] = Field(
        [], description="Folders to watch."
    )
    webhook: Annotated[list[WebhookKeys], BeforeValidator(_as_list)] = Field(
        [], description="HTTP paths that start it."
    )
    window: Annotated[str, AfterValidator(_window)] | None = Field(
        None,
        description="The time of day in which triggers start runs; others wait. In the schedules'"
        " zone, or one of its own: `22:00-07:00 Europe/Paris`.",
        examples=["22:00-07:00"],
    )
    notify: Annotated[list[NotifyKeys], BeforeValidator(_as_list)] = Field(
        [], description="Notifications about the end of a run."
    )

    @property
    def plugins(self) -> dict[str, Any]:
        """What stands under other keys: one entry, or a list of them."""
        return self.model_extra or {}

    @property
    def built_in(self) -> list[TriggerKeys]:
        return [entry for kind in PLANNED_TRIGGERS for entry in getattr(self, kind)]

    @property
    def written_inputs(self) -> list[dict[str, Any]]:
        """The inputs that each trigger gives, as far as the file has their values."""
        return [
            {
                name: value
                for name, value in entry.given_inputs.items()
                if not (entry.has_callers and Value.scan(value)[0].expressions)
            }
            for entry in self.built_in
        ]

    def inputs_of_callers(self, inputs: Iterable[str]) -> frozenset[str]:
        """Return which of a pipeline's inputs have values from elsewhere: of calls, of packages."""
        called = (entry.given_inputs for entry in self.built_in if entry.has_callers)
        return frozenset(inputs if self.plugins else chain(*called))

    @property
    def starts_runs(self) -> bool:
        return any((*self.built_in, *self.plugins.values()))


class ConcurrencyKeys(Keys):
    """How runs of one group share this machine."""

    group: str | None = Field(None, description="Only one run of a group goes at a time.")
    on_conflict: Literal["queue", "skip", "cancel_running"] = Field(
        "queue", description="What happens while another run of the group goes."
    )
    priority: Literal["interactive", "normal", "batch"] = Field(
        "batch", description="The priority of its requests in the pool."
    )


class BudgetKeys(Keys):
    """Limits of a run; it stops between two items and can be resumed."""

    time: Seconds | None = Field(None, description="The most time.")
    tokens: Tokens | None = Field(None, description="The most tokens.")

    @property
    def is_set(self) -> bool:
        return self.time is not None or self.tokens is not None
