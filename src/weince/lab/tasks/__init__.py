"""What is trained and scored, one file a task."""
