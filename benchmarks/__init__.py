"""Measurements that anyone can repeat: ``python -m benchmarks NAME [--json OUT]``.

Every benchmark starts what it needs on this machine, measures us and our peers in the same run, and prints where we
are not first. Absolute times depend on the machine; ratios are what counts.
"""
