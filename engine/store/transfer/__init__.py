"""Models from and to elsewhere: registries, repositories, addresses, files."""
