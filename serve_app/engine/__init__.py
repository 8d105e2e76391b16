"""The weave engine: requests share denoiser forwards, step by step. Knows no pipeline."""
