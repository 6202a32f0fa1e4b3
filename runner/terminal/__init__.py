"""The chat in the terminal: what is typed, what it means, how an answer is shown."""
