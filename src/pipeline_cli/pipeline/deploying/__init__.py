"""Putting the pipeline on AWS and taking it away."""
