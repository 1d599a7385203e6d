"""What failed for good: read, explained, kept, sent back or taken out."""
