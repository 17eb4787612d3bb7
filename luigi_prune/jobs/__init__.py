"""The bridge: job functions, one per task, which `backends/job_run.py` calls by name.

A job function gets `request` (JSON data: spec, inputs, output, directories) and `context` (threads, device, processes);
it reads its inputs, calls the heavy half and writes one result. This file is light; the modules beside it import torch
or matplotlib, and are themselves imported when a job first runs.
"""
