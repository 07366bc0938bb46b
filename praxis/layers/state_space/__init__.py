"""State space layers: diagonal recurrences that run as convolutions or as scans."""
