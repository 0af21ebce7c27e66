"""Kubernetes: inventory, KubeRay objects and the leader Lease (issue 4 of 4 fills this room)."""
