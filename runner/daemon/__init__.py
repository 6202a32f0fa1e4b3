"""The local daemon: one model pool and one Prefect server for all runs of a machine.

How to start, find, lease and serve it.
"""
