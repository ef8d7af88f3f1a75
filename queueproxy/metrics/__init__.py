"""What happened, as numbers: for the autoscaler and for people."""
