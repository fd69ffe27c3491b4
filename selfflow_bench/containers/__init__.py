"""Runs in containers: pinned by digest, without a network, unprivileged, bounded, and cleaned up whatever happens.

`executor` is one more place where a worker can do a run; nothing that runs inside a container imports this package.
"""
