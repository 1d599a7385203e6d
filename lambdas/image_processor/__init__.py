"""The first handler: makes thumbnails of an uploaded image and says what it found out about it."""
