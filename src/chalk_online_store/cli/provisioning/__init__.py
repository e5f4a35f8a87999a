"""Tables on the command line: `terraform` and `provision`."""
