"""The durable store of events that wait for delivery."""
