"""What a model is worth, and whether a candidate may serve: metrics, tests, the gate, drift."""
