"""Who may work on what, where several runs or machines have one ledger: locks, claims, budgets."""
