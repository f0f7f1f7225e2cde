"""The packaged suites: YAML files and nothing else. ``bfpo evaluate --list`` shows what is in them."""
