"""What the process asks of kernel and C library; called by __main__ only."""
