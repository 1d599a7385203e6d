"""The words the parts of the pipeline use to talk: image ids, events, messages and failure codes.

Standard library only: a copy travels in each Lambda zip.
"""
