"""The lab's own clusters: made by kind, found again, given images, and measured."""
