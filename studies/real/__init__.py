"""The real-model study; see plan.md."""
