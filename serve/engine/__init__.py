"""Inference for predict requests, independent of HTTP and Ray."""
