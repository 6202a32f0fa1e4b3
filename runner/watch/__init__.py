"""Folders whose changes start runs: events as hints, the rescan as truth."""
