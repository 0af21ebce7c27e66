"""Kubernetes: the door to its API, informers, and the inventory of nodes and cards."""
