"""What a face is to the model: its data, its geometry, the words of face prompts."""
