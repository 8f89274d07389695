"""Order, resume, parallelism: what happens after what."""
