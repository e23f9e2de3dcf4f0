"""The artifact, both ends of it: a checkpoint becomes a Bundle here, and a Bundle becomes a session."""
