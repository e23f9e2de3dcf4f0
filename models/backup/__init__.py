"""Backup of a whole home while it is served, and its restoration elsewhere."""
