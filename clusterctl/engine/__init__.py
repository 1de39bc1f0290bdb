"""Runs programs on machines and carries plans out."""
