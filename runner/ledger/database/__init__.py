"""The ledger's two databases: tables, statements, connections, the thread that writes."""
