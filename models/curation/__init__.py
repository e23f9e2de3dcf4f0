"""The steps of curation; `models.curation.pipeline` puts them in order."""
