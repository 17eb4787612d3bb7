"""Jobs as SLURM jobs: submitted as arrays, polled together, adopted by the next driver if theirs ends."""
