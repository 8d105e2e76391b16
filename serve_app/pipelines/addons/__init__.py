"""LoRAs, VAEs, embeddings and IP adapters that requests name."""
