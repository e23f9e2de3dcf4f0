"""Opinion monitoring: topics, documents, trends and surges."""
