"""The Luigi side: the task graph, the worker, settings from luigi.cfg, progress."""
