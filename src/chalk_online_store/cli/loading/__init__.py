"""Bulk loads: from a file to a table, or to files that DynamoDB imports from S3."""
