"""Templates without I/O: what they are made of, how they travel, what Dockerfiles mean."""
