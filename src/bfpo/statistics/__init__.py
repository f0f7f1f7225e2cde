"""Statistics: intervals and tests, as pure functions of numbers.

It knows neither models nor records, and needs nothing but numpy.
"""
