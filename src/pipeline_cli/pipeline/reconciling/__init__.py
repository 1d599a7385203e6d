"""Making bucket, table and thumbnails agree."""
