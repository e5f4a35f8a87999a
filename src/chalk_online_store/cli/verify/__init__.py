"""`chalk-online-store verify`: checks what the library relies on, in the user's own account."""
