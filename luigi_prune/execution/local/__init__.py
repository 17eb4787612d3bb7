"""The local backend: one process per job, or several for DDP, forked from a process with torch loaded."""
