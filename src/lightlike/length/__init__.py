"""Description lengths: priors, razors and the criteria they stand beside."""
