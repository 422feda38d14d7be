"""Dataset versions: git tags, DVC, workspaces, pushed objects, what was forgotten."""
