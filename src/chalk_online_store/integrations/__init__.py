"""The store in the company of other libraries: each optional, imported on first use."""
