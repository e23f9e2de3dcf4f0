"""Export: from a checkpoint to a Bundle, and from a Bundle to a session."""
