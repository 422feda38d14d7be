"""Bring the files of a checkout that an older release wrote up to date."""
