"""Small tasks that a convolutional, a recurrent and a state space network learn in seconds."""
