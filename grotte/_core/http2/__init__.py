"""HTTP/2 connections and the pool: sockets and streams, nothing of sandboxes."""
