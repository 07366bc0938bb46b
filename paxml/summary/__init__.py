"""What a run tells its user: event files, a progress line, tables and pictures."""
