"""Several processes on one machine that take calls as one bridge."""
