"""Intake of feedback, and the prediction log that it refers to."""
