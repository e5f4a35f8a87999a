"""Names to ids, values to attributes, rows to items. Pure: bytes in, bytes out."""
