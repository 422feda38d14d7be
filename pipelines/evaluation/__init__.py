"""Evaluation of an adapter on held-out people: what is asked, who judges, what is computed, how it is shown."""
