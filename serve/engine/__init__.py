"""What answers a predict request. Knows no HTTP and no Ray."""
