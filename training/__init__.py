"""Trains and scores the demo checkpoints: tiny latent-diffusion models of coloured shapes.

One command per part (``python -m training.vae``, ``training.unet``, ``training.lora`` and so
on); ``python -m training.all`` runs them in order. Nothing here is imported by the service.
"""
