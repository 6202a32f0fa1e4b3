"""What a pipeline reaches, what it may, and which files no step may write."""
