"""Other processes and machines on the same work: claims, groups, what was in flight."""
