"""A model's copy in a format that the device is quick with: made, judged, kept, undone."""
