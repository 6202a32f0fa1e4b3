"""The ledger: what was done from what.

SQLite or PostgreSQL, one writer, locks, coordination of machines, retention.
"""
