"""Scenarios of the feedback loop, each one command with its own server and bounds; docs/feedback.md has results."""
