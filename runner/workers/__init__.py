"""Runs on several machines.

Preflight checks, delegation to a work pool, the worker of each machine.
"""
