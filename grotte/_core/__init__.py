"""The asynchronous source of truth: everything below `grotte/_sync` is generated from it."""
