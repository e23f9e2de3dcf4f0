"""Training data: labelled texts, users' interactions, and the seed corpora."""
