"""Other runs on this machine: turns of a concurrency group, and items that crashed a run."""
