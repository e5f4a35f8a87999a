"""What lies between a call and the table: LRU cache, coalescing, Bloom filter, shared cache."""
