"""What models are trained on: labelled texts, users' interactions, and the seed corpora."""
