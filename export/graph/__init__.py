"""Graph transformations of an export: fusion, unpadding, outliers, quantization."""
