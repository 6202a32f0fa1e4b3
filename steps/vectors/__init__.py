"""Vector stores: the steps `embed` and `search`, and the stores on the disk."""
