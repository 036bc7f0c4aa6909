"""Schema packs and the manager that applies them."""
