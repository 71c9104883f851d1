"""Content-addressed files of a job: what is shipped, checked by digest, and never shipped twice."""
