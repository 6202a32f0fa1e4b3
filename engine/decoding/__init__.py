"""What one context computes next: sequences, who owns which cells, the owner thread."""
