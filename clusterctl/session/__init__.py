"""One run: connections to the machines, the operator lock, the journal."""
