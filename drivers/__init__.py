"""One real engine a file (or folder)."""
