"""Calls of models and tools: the pools of a run, its models, the call cache."""
