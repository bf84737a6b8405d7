"""Templates from the builder to a running sandbox."""
