"""The cluster as the inventory describes it: frozen, without any effect."""
