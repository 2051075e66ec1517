"""The service: an experiment file in, a table of trials, a best config and a report out.  Alone knows Ray."""
