"""Backends: what carries messages between the server and the sites."""
