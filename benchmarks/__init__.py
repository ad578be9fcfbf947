"""What AIPOD costs, beside what it is compared with, on the same work in the same minutes: ``python -m benchmarks``."""
