"""The automatic part of the feedback loop: retraining, rollout, and the registry's aliases."""
