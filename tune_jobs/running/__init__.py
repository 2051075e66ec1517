"""A search while it runs: Ray Tune set to work, each trial handed out, recorded, watched, stopped or run again."""
