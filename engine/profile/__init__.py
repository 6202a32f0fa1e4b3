"""How fast a model is on this device.

Measured, stored, and used to choose layouts and predict run times.
"""
