"""One file for each Lambda function; each is an API Gateway integration with its own role."""
