"""All steps from a photo to a training row."""
