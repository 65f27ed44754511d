"""One telephone call: its clock, its tracks, and every task that belongs to it."""
