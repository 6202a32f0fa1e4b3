"""The second engine for processors: the same weights in OpenVINO's form, under one scheduler."""
