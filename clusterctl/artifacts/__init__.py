"""Programs and images: what is pinned, where it comes from, and the verified copies on this machine."""
