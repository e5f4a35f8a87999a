"""What tests of Terraform files need: real terraform, offline, and a stand-in for its provider."""
