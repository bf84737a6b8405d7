"""The engine: real sandboxes on this machine, behind the wire protocol of the hosted service."""
