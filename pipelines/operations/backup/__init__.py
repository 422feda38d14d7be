"""Backups of databases, artefacts and tags, and their restoration."""
