"""What a grammar cannot say of an answer, as functions that `check` calls."""
