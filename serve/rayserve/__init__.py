"""The integration with Ray Serve, HAProxy and uvicorn."""
