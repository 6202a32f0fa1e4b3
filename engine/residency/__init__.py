"""Which models are in memory, and who makes room for whom."""
