"""The local service: one pool and one Prefect server for all runs on this machine."""
