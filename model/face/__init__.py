"""A face as the model uses it: data, geometry, words of face prompts."""
