"""Data sets, real and made, on which the quality of trained models and the cost of training are measured."""
