"""The steps of curation; `models.curate` puts them in order."""
