"""Continuous batching: scheduler, prefix cache, drafts, decode loop.

Pure, except `kv_cache`, `loop`, `running_request` and the draft model.
"""
