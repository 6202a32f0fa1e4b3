"""Vector stores on the disk."""
