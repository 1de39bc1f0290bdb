"""From desired and observed state to a plan."""
