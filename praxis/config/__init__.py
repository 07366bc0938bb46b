"""Configuration: configs of layers and other classes, and how they are built."""
