"""The edge on AWS Lambda: events in and out, metrics for CloudWatch, and the runtime."""
