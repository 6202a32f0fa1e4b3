"""llama.cpp behind our own types: the only package that imports llama_cpp."""
