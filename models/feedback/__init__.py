"""User feedback: its types, user pseudonyms, redaction of personal data, and the store."""
