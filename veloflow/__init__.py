"""veloflow: iterative work as a graph of units, on OpenCL or NumPy, alone or farmed out."""

__all__ = ["__version__"]

__version__ = "0.1.0"
