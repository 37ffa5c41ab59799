"""The Kubernetes operator: pauses workloads while the breaker is open, and shows the state in ``OpenRouterStatus``.

main        one run: become the leader, then let kopf watch
├─ lease       who may act
├─ probes      whether this process works, over HTTP
│  └─ telemetry   what it tells Prometheus, in the format of metrics
└─ handlers    kopf in, kopf out
   ├─ streams     whether the watches show what happens         pure
   ├─ orphans     what a resource that is gone had paused
   └─ reconcile   one resource: gather, decide, answer
      ├─ changes     carries out, each on its own, and again
      ├─ plan        what should become of the workloads         pure
      ├─ tally       how many workloads are how                  pure
      ├─ conditions  what the status says                        pure
      ├─ spec        what the user asks for                      pure
      ├─ workload    a workload, and what it remembers           pure
      ├─ feed        the shared state of each scope
      ├─ inventory   the workloads of the cluster, as watched
      └─ cluster     the only file that talks to Kubernetes

rescue      without any of them: all that is paused comes back
"""
