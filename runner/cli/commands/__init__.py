"""Commands of the command line, each module named after the commands it holds."""
