"""This computer: files, locks, text."""
