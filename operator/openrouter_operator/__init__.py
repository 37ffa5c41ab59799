"""The Kubernetes operator: pauses workloads while the breaker is open, and shows the state in ``OpenRouterStatus``.

main          one run: become the leader, then let kopf watch
rescue        restores everything that is paused, without an operator
serving       probes and metrics over HTTP
controller    the loop of each resource: gather, decide, apply
shared_state  the state of each scope, as Redis pushes it
kubernetes    the API server; nothing else talks to it
decisions     the plan for the workloads, and the content of the status: pure
resource      the spec of the custom resource: pure
workloads     the kinds that can be paused, and the pause stored on each workload
"""
