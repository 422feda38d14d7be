"""What is kept and for how long: copies in a DVC remote, backups, retention."""
