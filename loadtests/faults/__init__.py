"""Faults under load: what clients saw, how long until all was normal, what was lost. `python -m loadtests.faults`."""
