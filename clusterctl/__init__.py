"""Turns bare Linux machines into an upstream Kubernetes cluster over SSH, and looks after it."""

__version__ = "0.1.0"
