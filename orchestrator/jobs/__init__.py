"""One module a job, and the table of them."""
