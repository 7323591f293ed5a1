"""Placement design: stores for workers of given capacities, so that little need be sent."""
