"""Buses the recorder subscribes to, and the publisher for processes that must not share an interpreter with it."""
