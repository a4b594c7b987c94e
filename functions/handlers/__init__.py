"""One file a Lambda function; each is an API Gateway integration of its own, with its own role."""
