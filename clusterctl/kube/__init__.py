"""The Kubernetes API: its client, objects, drains."""
