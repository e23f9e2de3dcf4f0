"""Releases: the record of which versions serve, its moves (rollout), and the MLflow registry."""
