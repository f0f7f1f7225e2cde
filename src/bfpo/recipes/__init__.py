"""The packaged recipes: YAML files and nothing else. ``bfpo recipe list`` names them."""
