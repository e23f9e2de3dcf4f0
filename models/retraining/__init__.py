"""Retraining: from waiting corrections to a candidate that has been through the gate."""
