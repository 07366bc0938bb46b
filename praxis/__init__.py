"""Praxis: a layer library on Flax linen, configured with Fiddle."""
