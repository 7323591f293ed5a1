"""Placement design: who should store what, so that little need be sent."""
