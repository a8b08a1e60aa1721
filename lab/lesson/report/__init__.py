"""What is handed in of a lesson: the page, its PDF, files for graders, and how a teacher looks at them."""
