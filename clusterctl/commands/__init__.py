"""The operations of the command line: one file for each verb, named after its words."""
