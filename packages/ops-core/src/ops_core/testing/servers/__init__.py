"""Private servers for tests: PostgreSQL, RabbitMQ, and a TCP proxy that can be cut."""
