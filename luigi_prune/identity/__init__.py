"""What identifies a task: its spec, its key and the paths of its files."""
