"""Named null directions: what changes no prediction to first order, and why."""
