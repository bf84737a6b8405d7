"""What sandboxes exist, whose they are, and when they end."""
