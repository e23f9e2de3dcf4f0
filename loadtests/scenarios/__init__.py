"""Whole stories, each one command: what users do, what the server makes of it, and bounds on both."""
