"""What type checkers say of the public names."""
