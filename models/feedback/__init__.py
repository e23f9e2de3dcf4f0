"""What users said: its types, pseudonyms, personal data, and the store that keeps it."""
