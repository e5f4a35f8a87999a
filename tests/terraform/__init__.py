"""What tests of Terraform files need: real terraform, offline, and a stand-in for its provider."""

ACCOUNT = "123456789012"
"""The account that the stand-in is in."""
