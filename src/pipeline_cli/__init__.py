"""imgpipe: the operator's tool of the image pipeline."""

__version__ = "0.1.0"
