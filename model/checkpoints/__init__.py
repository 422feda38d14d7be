"""Read and write published checkpoint formats."""
