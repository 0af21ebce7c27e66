"""A stand-in for KubeRay 1.7, Kubernetes' scheduler and its kubelets, over the API server's double.

``operator`` turns RayClusters and RayJobs into pods with status, ``kubelet`` puts pods on nodes and runs them, through
``paper`` (they are there at once, a test may hold them up or break them) or ``machines`` (real local processes).
``park`` holds all of it together.

What it leaves out on purpose: the autoscaler, submission modes but the sidecar, groups of several hosts, fault
tolerance of the control store, upgrades, webhooks; preemption, spreading, pod affinity; evictions by taints.
"""
