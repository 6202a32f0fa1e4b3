"""What is wrong with a pipeline before a run: each module collects the faults of one part of it."""
