"""Couplings between tasks: penalties on the models of all tasks, and their proximal operators."""
