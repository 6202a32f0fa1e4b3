"""Calls of models and tools: the pools of a run, its models, and what the ledger answers."""
