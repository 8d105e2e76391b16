"""The peers: small servers of the stock pipelines, each as its framework's documentation has it."""
