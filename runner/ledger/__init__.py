"""The ledger: what was done from what.

SQLite or PostgreSQL, one writer, locks, coordination of machines, retention. A `…Store` reads and
writes the rows of one kind and keeps none (lineage, filed documents, reviews; `Ledger` itself all
others); `OutputIndex` has all rows of outputs in memory.
"""
