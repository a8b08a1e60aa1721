"""What a user types, and its words."""
