"""The operator's HTTP API under `/api`, and its client: what the commands use to speak to a running bridge."""
