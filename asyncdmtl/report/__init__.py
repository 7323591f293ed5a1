"""Reports of runs, plans and placements: as dicts, as tables, as pictures."""
