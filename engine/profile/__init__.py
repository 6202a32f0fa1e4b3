"""Speed of a model on this device: measured, stored, used for layouts and estimates."""
