"""Training and evaluation of any model on any batches: arrays and callables only."""
