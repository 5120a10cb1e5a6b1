"""Reports of a sample of a system's units, for people: where each fires, what it writes, what it fires with.

No registered metric: nothing here is a figure of the table. `describe.py` makes the reports, `reports.py` is the file
that they lie in (units.json) and reads it, `markdown.py` tells the most telling of all systems in one page of text.
"""
