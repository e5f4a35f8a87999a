"""`chalk-online-store bench`: how fast a store of the user's answers, and what that takes."""
