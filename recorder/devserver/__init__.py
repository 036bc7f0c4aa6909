"""ClickHouse for development and tests without a container: the real engine behind an HTTP front of ours."""
