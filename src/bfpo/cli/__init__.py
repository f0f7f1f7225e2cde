"""The command line, one file per command: parsing and printing, no logic of its own."""
