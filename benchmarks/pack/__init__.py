"""A pack with one plain table, for measuring without the weight of a real one."""
