"""What a model does on a device, measured once: the numbers, their store, what follows of them."""
