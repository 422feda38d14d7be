"""Diffusers pipelines that render given people."""
