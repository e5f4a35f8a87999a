"""Table descriptions, Terraform, IAM policies, and changes through AWS's API."""
