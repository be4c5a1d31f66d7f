"""Federated learning: messages, sites, the server and its round loop."""
