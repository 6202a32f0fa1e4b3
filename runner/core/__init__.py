"""The run: judge items, run blocks, items and steps, record them. Imports no Prefect."""
