"""Serving: client, embedded server and deployment files. Importing this imports nothing heavy."""
