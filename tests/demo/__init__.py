"""``make demo``: an outage from its beginning to its end, on a real Kubernetes control plane of its own.

    story       what happens, in order, and what must hold
    ├─ stage    what runs: it is started, waited for, and ended
    ├─ watch    ``kubectl get --watch``, line by line
    └─ telling  how it looks on the terminal
    errors      what can go wrong

All programs are the real ones. Only OpenRouter and the workers are simulated; the workers are processes beside the
cluster, for it has no node on which a pod could run.
"""
