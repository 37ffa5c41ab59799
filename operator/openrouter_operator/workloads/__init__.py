"""The workloads: their kinds, their pauses, and a cache of the cluster's."""
