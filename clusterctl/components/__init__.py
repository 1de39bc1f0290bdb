"""The products that make a cluster."""
