"""Progress of a run: events, journal, report, Prefect's view of it, and the gate that stops it."""
