"""What is sent: texts, documents and rankings made of the seed corpora. No Locust is needed to import these."""
