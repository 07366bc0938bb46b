"""Bodies of the recurrent layers; import them from `praxis.layers.rnn_cell` and `frnn`."""
