"""Files of a folder: which folder it is, which files count, are finished, or were deleted."""
