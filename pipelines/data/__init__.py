"""Everything between a photo and a training row."""
