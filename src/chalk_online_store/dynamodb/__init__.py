"""DynamoDB: our own wire. Bodies, typed answers, errors, retries and event time; no sockets."""
