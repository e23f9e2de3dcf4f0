"""All that knows Ray Serve, HAProxy and uvicorn."""
