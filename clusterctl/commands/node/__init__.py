"""``clusterctl node ...``."""
