"""One process, one model: both ends of the pipe to it."""
