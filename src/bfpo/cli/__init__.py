"""The command line: one file a command. It parses and prints, and holds no logic of its own."""
