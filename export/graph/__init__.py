"""What only an export does to a graph: fusion, attention without padding, outliers, quantization."""
