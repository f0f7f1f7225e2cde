"""Statistics: intervals, tests and judge errors as pure functions of numbers, independent of models and records."""
