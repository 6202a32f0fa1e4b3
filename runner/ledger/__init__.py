"""The ledger: what was done from what.

SQLite or PostgreSQL (`database`), locks (`run_locks`), what people decide (`reviews`),
retention. A `…Store` reads and writes the rows of one kind and keeps none: runs, lineage, filed
documents, reviews; `Ledger` has items, outputs, calls, attempts and watches. `OutputIndex` has all
rows of outputs in memory.
"""
