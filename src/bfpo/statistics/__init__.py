"""Statistics: intervals, tests and judges' errors as pure functions of numbers.

It knows neither models nor records.
"""
