"""What items write: recorded, kept where a person edited it, removed when outdated."""
