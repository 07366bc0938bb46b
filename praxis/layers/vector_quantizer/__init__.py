"""Vector quantizers: latent vectors as codes of a codebook."""
