"""The stages from a folder of face photos to a registered model, and what they share."""
