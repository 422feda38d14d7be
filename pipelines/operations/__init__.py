"""What keeps an installation running: servers, inbox, backup, forgetting, retention."""
