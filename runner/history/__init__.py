"""What happened: runs, their logs, and for how long both are kept."""
