"""From a pile of photos to an identity-labelled, balanced set: what `dynamicid curate` does."""
