"""Where jobs run: in this process, in processes of this machine, or on a cluster.

registry.py     the table of backends, our own and those of other packages
job.py          what a backend is: Job, Context, Outcome, Backend
job_run.py      runs a job in the process where it has arrived
remote.py       what commands ask about jobs that outlive their driver
devices.py      which GPUs there are, and how many processes a job has
inline.py, local.py, slurm/   the backends
"""
