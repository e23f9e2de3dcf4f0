"""Tasks, their data, training, evaluation and releases."""
