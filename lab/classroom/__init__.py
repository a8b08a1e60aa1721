"""A class at a glance: what students handed in, set beside each other without a ranking (docs/teaching.md)."""
