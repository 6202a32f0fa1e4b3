"""The run: judge what is stale, run blocks, items and steps, record them. Imports no Prefect."""
