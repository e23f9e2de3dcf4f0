"""What an export, or the loading of one, may fail with. Imports nothing."""

from __future__ import annotations


class BundleError(Exception):
    """Raised when a bundle is missing, incomplete, damaged, or of a format this version does not read."""


class ParityError(Exception):
    """Raised when an exported model answers differently from its checkpoint, or differently in a batch."""


class ProviderError(Exception):
    """Raised when the configuration asks for a provider that this build or this machine does not have."""


class CheckpointError(Exception):
    """Raised when a base model or a checkpoint cannot be found, or is not what it claims to be."""
