"""The custom resource: its spec, and which of several resources a workload follows."""
