"""llama.cpp behind our own types: the only closet that knows `llama_cpp`. For worker processes."""
