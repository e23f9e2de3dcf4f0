"""The knowledge base of customer service: a company's questions and answers, found by meaning."""
