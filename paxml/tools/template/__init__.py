"""The files that `pax new` copies: an experiment, and the tests of it."""
