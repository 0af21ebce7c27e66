"""A Kubernetes API server in memory, on loopback: what an API server alone does, without controllers, kubelets or CEL.

What kinds there are, their schemas, how their lists merge and which subresources they have is read from the OpenAPI
document of Kubernetes 1.36 and from CustomResourceDefinitions: a kind is data. ``tests/contract/kube`` holds it to the
same suite as a real one.

Not there on purpose: admission but for namespaces, defaults of built-in kinds, CEL rules, strategic merge patches,
conversion between versions, authorization (calls are recorded, so that a role can be compared with them).
"""
