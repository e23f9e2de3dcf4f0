"""Metrics, significance tests, the gate that decides whether a candidate may serve, drift."""
