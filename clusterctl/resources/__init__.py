"""Kinds of resources on machines."""
