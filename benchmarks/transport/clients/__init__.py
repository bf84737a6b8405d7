"""One module a library: `open_async(job)` and, where it has one, `open_sync(job)`; see `protocol`."""
