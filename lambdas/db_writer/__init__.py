"""From a metadata message to an item of the images table."""
