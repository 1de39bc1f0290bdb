"""What the verbs of the command line do: one file for each, by the verb's words."""
