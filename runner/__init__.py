"""Entrances and journeys: command line, Prefect flow, ledger, reports."""
