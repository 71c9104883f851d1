"""What makes results equal to the bit: integer sums, the update, digests, threads, the canary."""
