"""`queueproxy run`: any web app on one machine, with the freezer in-process."""
