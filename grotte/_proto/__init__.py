"""Sans-I/O: what is on the wire and needs neither a socket nor an event loop, shared by the async and sync trees."""
