"""The packaged recipes, as YAML files; ``bfpo recipe list`` lists them."""
