"""What was done from what: tables, one writer, readers, files and locks."""
