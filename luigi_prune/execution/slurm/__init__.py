"""Jobs as SLURM jobs.

backend.py      the one thread that submits, watches and decides
ticket.py       what it knows of one job
states.py       the table: what to do about which state
options.py      what luigi.cfg asks for
client.py       SLURM's commands
submission.py   into the queue, through submitit
claims.py       who computes a result
news.py         what a job says while it runs
job_process.py  the job's side
remote.py       what commands ask and do: where jobs are, cancelling them, leftovers
"""
