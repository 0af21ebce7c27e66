"""SHELL. Ports, the observe-plan-record-apply cycle and the service: every verb a user has."""
