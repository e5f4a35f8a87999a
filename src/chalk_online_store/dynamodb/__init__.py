"""DynamoDB: request bodies, typed responses, errors, event time, transports, credentials, URLs."""
