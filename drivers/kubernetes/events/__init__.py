"""What a cluster tells of launches by events, as it happens."""
