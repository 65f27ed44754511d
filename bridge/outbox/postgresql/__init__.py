"""The outbox of many machines, kept in PostgreSQL."""
