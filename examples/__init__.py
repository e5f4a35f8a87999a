"""Programs to copy from, each of them whole in one module; `README.md` says how to run them."""
