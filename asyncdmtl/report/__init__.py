"""What a run was and cost: as a dict, as tables, as pictures."""
