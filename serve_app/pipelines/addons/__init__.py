"""LoRAs, VAEs, embeddings, IP adapters and ControlNets that requests name."""
