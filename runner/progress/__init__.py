"""What a run tells while it goes and at its end.

Events, journal, report, Prefect's view of it, and the gate that stops it.
"""
