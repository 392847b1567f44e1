"""The version of this package, without importing any of it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
