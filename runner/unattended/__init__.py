"""`paddock up`: what starts runs by itself, and what carries them out."""
