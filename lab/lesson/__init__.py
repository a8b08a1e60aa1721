"""Guided lessons that check a student's own result: see docs/lessons.md."""
