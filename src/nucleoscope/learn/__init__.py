"""Networks, losses, training and inference: the only floor that imports torch."""
