"""What moves by itself: retraining, releases, the registry."""
