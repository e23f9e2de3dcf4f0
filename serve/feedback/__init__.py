"""Corrections on their way in, and the log of predictions that they speak of."""
