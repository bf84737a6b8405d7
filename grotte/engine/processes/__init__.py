"""Processes inside sandboxes: their output, their input, and how they end."""
