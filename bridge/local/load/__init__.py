"""What a load of simulated calls needs around a bridge: both its ends, and the measuring of it."""
