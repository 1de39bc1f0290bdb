"""Connections to machines."""
