"""The pages for people: /, /my-credits and /admin, with their static files."""
