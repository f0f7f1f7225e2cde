"""Reports: the table, the plot and the page that show evaluations side by side.

They take evaluations as they are and know nothing of how the numbers were made.
"""
