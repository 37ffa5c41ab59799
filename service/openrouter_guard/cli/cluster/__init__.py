"""The commands that need a kubeconfig, and the extra ``[operator]``."""
