"""Runs jobs: in the driver's process, in other processes of this machine, or on a cluster.

backends.py       the table of backends, built-in ones and those of other packages
job.py            the interface of a backend: Job, Context, Outcome, Listener, Backend
job_run.py        runs a job in the current process
bundles.py        runs several jobs of an equal schedule in the current process
waiting_jobs.py   jobs that wait for a slot of this machine, and which of them start together
remote_jobs.py    jobs that outlive their driver, as commands query them
devices.py        visible GPUs, number of processes per job
slots.py          how many processes run at once, and on which GPU
output.py         a job's output and its log
preload.py        modules that the fork server imports in advance
inline.py, local/, slurm/   the backends
"""
