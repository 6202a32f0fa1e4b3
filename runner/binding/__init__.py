"""From a plan to typed steps: the last place where the author of a YAML file can be wrong."""
