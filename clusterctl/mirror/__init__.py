"""A mirror of programs and images, filled from upstream or built from source. Only its verb and the lab import it."""
