"""The second engine for processors: the same weights as an OpenVINO IR, under one scheduler."""
