"""The service: an experiment file in, a table of trials, a best config and a report out.  Alone knows Ray.

`commands` is what a person types, and each command's work is a module here: `search`, `plan`, `confirm`, `train`,
`benchmark`, `submit`, `follow`.  `experiment` and `space` are what is asked; `cluster` is Ray's, joined or started;
`study` is Optuna's; `running` is a search under way, and `trial` what it runs in a worker.  `results` reads and writes
a run's files without Ray, the report among them.
"""
