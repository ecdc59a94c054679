"""Training memory cores on probes with supervision, and what their scores say."""
