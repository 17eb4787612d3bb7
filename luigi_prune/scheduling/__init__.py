"""Luigi's scheduler with indexes in place of scans, and the server that runs it for several drivers."""
