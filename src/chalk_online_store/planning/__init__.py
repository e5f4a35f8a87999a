"""What operations cost: capacity units by AWS's rules, and where an item's bytes go. Pure."""
