"""What we are compared with: the least that does the same work."""
