"""What the store costs its client in CPU, beside boto3: see README.md."""
