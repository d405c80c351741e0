"""Image-classification experiments that can be believed."""

__version__ = "0.1.0"
