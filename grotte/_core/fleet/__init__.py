"""Many sandboxes from one program: admission, retries, spares and certain clean-up."""
