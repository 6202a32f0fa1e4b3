"""Process that compares edited values with schemas: a short one may be 2³⁰ ways of one thing."""

from __future__ import annotations

from paddock.engine.trial_process import answer_trials
from paddock.engine.wire import to_plain
from paddock.pipelines.schema_validation import value_faults


def main() -> None:
    value_faults("", {"pattern": "a"})  # loads the libraries, before memory is limited
    answer_trials(lambda of: {"faults": to_plain(value_faults(**of, is_for_person=True))})


if __name__ == "__main__":
    main()
