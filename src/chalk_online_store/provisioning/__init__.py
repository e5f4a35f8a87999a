"""Tables as they should be, by API or as Terraform, and whether they are. Control plane only."""
