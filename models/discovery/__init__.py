"""What to learn next: which logged texts people should label, which labels are missing, and which overlap."""
