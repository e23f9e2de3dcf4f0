"""The steps of curation; their order is in `models.curation.pipeline`."""
