"""What a job costs on its way, where nothing is painted."""
