"""Files that `lab import` reads: the lab's own, and other tools'."""
