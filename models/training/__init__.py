"""Training: from a corpus to a checkpoint, and to an evaluated candidate."""
