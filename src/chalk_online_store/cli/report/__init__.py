"""What was reckoned of a mix as one HTML page: all that it shows is in it."""
