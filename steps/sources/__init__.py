"""Documents that come from elsewhere: their sources, and the folders that these are copied into."""
