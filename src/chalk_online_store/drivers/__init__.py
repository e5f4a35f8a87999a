"""What performs effects: the only code that touches sockets, files, clocks and threads."""
