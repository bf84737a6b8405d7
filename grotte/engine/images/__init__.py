"""Images of other people's registries, as layers that sandboxes can stand on."""
