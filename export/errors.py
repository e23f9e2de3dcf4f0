"""Errors of exporting and loading models. Imports nothing."""

from __future__ import annotations


class BundleError(Exception):
    """Raised when a bundle is missing, incomplete, damaged, or of a format this version does not read."""


class ParityError(Exception):
    """Raised when outputs of an exported model differ from its checkpoint's, or depend on the batch."""


class ProviderError(Exception):
    """Raised when the configuration asks for a provider that this build or this machine does not have."""


class CheckpointError(Exception):
    """Raised when a base model or a checkpoint cannot be found, or is invalid."""
