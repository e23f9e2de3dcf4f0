"""What a task is and how it learns: requests to texts, outputs to predictions, corpora to versions."""
