"""Graph transformations of an export: fusion, unpadding, equalization, outliers, quantization."""
