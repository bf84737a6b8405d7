"""The control plane: create, find, list, extend and kill sandboxes over REST."""
