"""The store on DynamoDB: one item an account, one write a step."""
