"""From a corpus to a checkpoint to an evaluated candidate."""
