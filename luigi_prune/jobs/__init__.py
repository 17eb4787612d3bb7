"""Job functions, one module per stage; importing such a module loads torch or matplotlib.

`execution/job_run.py` calls a job function by name with `request` (JSON data: spec, inputs, output, directories) and
`context` (threads, device, processes). It reads its inputs, calls `compute/` or `report/` and writes one result.
"""
