"""Whether machines and clusters are fit: before a change, after it, and for ``status``."""
