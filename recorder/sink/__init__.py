"""Where rows go: one protocol, the embedded engine behind it."""
