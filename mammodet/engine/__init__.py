"""Train and predict."""
