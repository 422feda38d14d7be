"""Run an installation: servers, inbox, backups, deletion of a person's data, retention."""
