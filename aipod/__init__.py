"""AIPOD turns a Python class into a served, versioned, retrainable model."""

__version__ = "2.0.0.dev0"
