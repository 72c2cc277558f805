"""What the configs of diffusers' schedulers mean."""
