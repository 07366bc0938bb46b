"""Pure steps of training and evaluation, and the state they work on."""
