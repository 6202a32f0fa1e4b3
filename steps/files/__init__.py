"""Steps on files: scan, read, rows, write, move."""
