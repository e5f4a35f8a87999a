"""What a store does, as generators of effects: written once for sync, async and simulation."""
