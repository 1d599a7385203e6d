"""Getting files into the upload bucket."""
