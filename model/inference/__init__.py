"""Pipelines of diffusers with people in them."""
