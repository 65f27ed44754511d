"""Delivery of stored events: lanes, signed POSTs, retries, and which targets are allowed."""
